//! What a processor could multiply at all: products whose operands stay in registers and in the first-level cache, with
//! nothing around them. How near a kernel comes is its share of the compute roof (Williams, Waterman and Patterson, "Roofline",
//! 2009); in plain Rust the roof is what the compiler makes of it.

use std::hint::black_box;

/// Products that were computed and added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplied {
    /// Multiply-adds.
    pub count: u64,
    /// Their sum. All factors are one, so that it is the count too, until a lane of sixteen bits or a float is full.
    pub sum: u64,
}

/// Multiplies so many rounds.
pub(super) type Multiply = fn(usize) -> Multiplied;

/// The fastest way of an instruction set to multiply.
#[derive(Clone, Copy)]
pub(super) struct Peak {
    /// Bytes by bytes, summed up in integers of the narrowest kind that the instruction set adds products in.
    pub(super) bytes: Multiply,
    /// f32 by f32, summed up in f32.
    pub(super) floats: Multiply,
}

/// Vectors that are read in a round: few enough for any first-level cache, and a multiple of what is multiplied at once.
pub(super) const VECTORS: usize = 96;

/// Vectors of ones, which the compiler must not know to be ones.
#[repr(align(64))]
pub(super) struct Ones<T, const LANES: usize>([[T; LANES]; VECTORS]);

impl<T: Copy, const LANES: usize> Ones<T, LANES> {
    pub(super) fn new(one: T) -> Self {
        black_box(Self([[one; LANES]; VECTORS]))
    }

    /// The vectors, for all that is known changed since the last time, so that no product can be kept from one round to the
    /// next; `N` at a time.
    #[inline(always)]
    pub(super) fn read<const N: usize>(&mut self) -> &[[[T; LANES]; N]] {
        const { assert!(VECTORS.is_multiple_of(N)) };
        black_box(&mut *self).0.as_chunks().0
    }
}

/// Lanes of plain Rust.
const LANES: usize = 16;
/// Vectors that are multiplied at once in plain Rust.
const TOGETHER: usize = 4;

/// Plain Rust; the compiler vectorises what it can.
pub(super) const PORTABLE: Peak = Peak {
    bytes: |rounds| {
        let weights = Ones::<i8, LANES>::new(1).0;
        let mut tokens = Ones::<i8, LANES>::new(1);
        let mut sums = [[0_i32; LANES]; TOGETHER];
        for _ in 0..rounds {
            for four in tokens.read::<TOGETHER>() {
                for ((sums, token), weight) in sums.iter_mut().zip(four).zip(&weights) {
                    for ((sum, &x), &w) in sums.iter_mut().zip(token).zip(weight) {
                        *sum = sum.wrapping_add(i32::from(i16::from(x).wrapping_mul(w.into())));
                    }
                }
            }
        }
        let sum = sums.as_flattened().iter().map(|&sum| u64::from(sum.cast_unsigned())).sum();
        Multiplied { count: (rounds * VECTORS * LANES) as u64, sum }
    },
    floats: |rounds| {
        let weights = Ones::<f32, LANES>::new(1.0).0;
        let mut tokens = Ones::<f32, LANES>::new(1.0);
        let mut sums = [[0.0_f32; LANES]; TOGETHER];
        for _ in 0..rounds {
            for four in tokens.read::<TOGETHER>() {
                for ((sums, token), weight) in sums.iter_mut().zip(four).zip(&weights) {
                    for ((sum, &x), &w) in sums.iter_mut().zip(token).zip(weight) {
                        *sum += x * w;
                    }
                }
            }
        }
        let sum: f32 = sums.as_flattened().iter().sum();
        Multiplied { count: (rounds * VECTORS * LANES) as u64, sum: sum as u64 }
    },
};

#[cfg(test)]
mod tests {
    use super::super::Kernels;

    /// Were a product left out, or kept from the round before, there would be fewer ones to add up.
    #[test]
    fn as_many_products_are_added_up_as_are_told() {
        for kernels in Kernels::available() {
            for rounds in [1, 2, 50] {
                for found in [kernels.multiply_bytes(rounds), kernels.multiply_floats(rounds)] {
                    assert_eq!(found.sum, found.count, "{kernels:?} {rounds}");
                    assert!(found.count > 0);
                }
            }
            assert_eq!(kernels.multiply_bytes(6).count, 6 * kernels.multiply_bytes(1).count);
        }
    }
}

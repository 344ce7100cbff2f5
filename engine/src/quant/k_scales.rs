//! The twelve bytes in which `Q4_K` and `Q5_K` keep eight 6-bit scales and eight 6-bit minimums.

/// Scales and minimums of the eight sub-blocks.
pub(crate) fn unpack(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let scale = |j: usize| match j {
        0..4 => packed[j] & 63,
        _ => packed[j + 4] & 0x0F | (packed[j - 4] >> 6) << 4,
    };
    let minimum = |j: usize| match j {
        0..4 => packed[j + 4] & 63,
        _ => packed[j + 4] >> 4 | (packed[j] >> 6) << 4,
    };
    (std::array::from_fn(scale), std::array::from_fn(minimum))
}

/// As [`unpack`], eight bytes to a word, first sub-block in the lowest byte.
#[inline]
pub(crate) fn unpack_words(packed: &[u8; 12]) -> (u64, u64) {
    const SIX: u32 = 0x3F3F_3F3F;
    const FOUR: u32 = 0x0F0F_0F0F;
    const TWO: u32 = 0x0303_0303;
    let word =
        |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (first, second, third) = (word(0), word(4), word(8));
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    (
        join(first & SIX, (third & FOUR) | ((first >> 6) & TWO) << 4),
        join(second & SIX, ((third >> 4) & FOUR) | ((second >> 6) & TWO) << 4),
    )
}

/// The inverse of [`unpack`]; every number is below 64.
pub(super) fn pack(scales: [u8; 8], minimums: [u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | (scales[i + 4] >> 4) << 6,
        4..8 => minimums[i - 4] | (minimums[i] >> 4) << 6,
        _ => scales[i - 4] & 0x0F | (minimums[i - 4] & 0x0F) << 4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_twelve_bytes_survive_unpacking_and_packing() {
        for seed in 0..=255u8 {
            let packed =
                std::array::from_fn(|i| seed.wrapping_mul(37).wrapping_add((i * 29) as u8));
            let (scales, minimums) = unpack(&packed);
            assert_eq!(pack(scales, minimums), packed);
            let words = (u64::from_le_bytes(scales), u64::from_le_bytes(minimums));
            assert_eq!(unpack_words(&packed), words);
        }
    }
}

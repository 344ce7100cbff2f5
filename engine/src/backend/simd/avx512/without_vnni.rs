//! Products of packed rows without VNNI: many activation rows in vectors of 64 bytes, few of them as with AVX2, since what they
//! wait for is memory.

// (The lint is silent in test builds, where an expectation of it would fail.)
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the vocabulary of this file")
)]
use std::arch::x86_64::*;

use zerocopy::little_endian::U16;

use super::super::activations::{Q8, Q8Super, Q8SuperRow};
use super::super::avx2::block_panel::{BlockPanel, MANY, ROWS};
use super::super::avx2::block_rows::{q4_0_few, q4_1_few, q5_0_few, q5_1_few};
use super::super::avx2::blocks::{
    block_product, q4_0_quants, q4_1_quants, q5_0_quants, q5_1_quants, q8_0_quants,
};
use super::super::avx2::four_rows::q8_0_few;
use super::super::avx2::sums::Sums;
use super::super::avx2::super_panel::{SuperPanel, SuperTile};
use super::super::avx2::supers::{
    q2_k_step, q2_k_unpack, q3_k_step, q3_k_unpack, q4_k_step, q4_k_unpack, q5_k_step, q5_k_unpack,
    q6_k_step, q6_k_unpack, super_product,
};
use super::super::avx2::vector::{load_i16, prefetch, prefetch_at};
use super::{block_panel, super_panel};
use crate::quant::{self, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

block_product!(
    "avx512bw,avx512vl",
    q4_0_product,
    q4_0_few,
    Q4_0,
    q4_0_quants,
    |_: &Q4_0| U16::ZERO,
    block_panel::multiply_in_words::<8, 3, false>,
    false
);
block_product!(
    "avx512bw,avx512vl",
    q4_1_product,
    q4_1_few,
    Q4_1,
    q4_1_quants,
    |block: &Q4_1| block.m,
    block_panel::multiply_in_words::<8, 0, true>,
    true
);
block_product!(
    "avx512bw,avx512vl",
    q5_0_product,
    q5_0_few,
    Q5_0,
    q5_0_quants,
    |_: &Q5_0| U16::ZERO,
    block_panel::multiply_in_words::<4, 4, false>,
    false
);
block_product!(
    "avx512bw,avx512vl",
    q5_1_product,
    q5_1_few,
    Q5_1,
    q5_1_quants,
    |block: &Q5_1| block.m,
    block_panel::multiply_in_words::<4, 0, true>,
    true
);
block_product!(
    "avx512bw,avx512vl",
    q8_0_product,
    q8_0_few,
    Q8_0,
    q8_0_quants,
    |_: &Q8_0| U16::ZERO,
    block_panel::multiply_signed,
    false
);

super_product!(
    "avx512bw,avx512vl",
    q2_k_product,
    q2_k_row,
    Q2K,
    q2_k_step,
    q2_k_unpack,
    SuperTile::put,
    super_panel::multiply_in_words::<4, true>,
    true
);
super_product!(
    "avx512bw,avx512vl",
    q3_k_product,
    q3_k_row,
    Q3K,
    q3_k_step,
    q3_k_unpack,
    SuperTile::put,
    super_panel::multiply_in_words::<4, false>,
    false
);
super_product!(
    "avx512bw,avx512vl",
    q4_k_product,
    q4_k_row,
    Q4K,
    q4_k_step,
    q4_k_unpack,
    SuperTile::put,
    super_panel::multiply_in_words::<8, true>,
    true
);
super_product!(
    "avx512bw,avx512vl",
    q5_k_product,
    q5_k_row,
    Q5K,
    q5_k_step,
    q5_k_unpack,
    SuperTile::put,
    super_panel::multiply_in_words::<4, true>,
    true
);
super_product!(
    "avx512bw,avx512vl",
    q6_k_product,
    q6_k_row,
    Q6K,
    q6_k_step,
    q6_k_unpack,
    SuperTile::put,
    super_panel::multiply_in_words::<2, false>,
    false
);

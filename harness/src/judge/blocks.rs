//! `dequant-oracle` and `quantize-roundtrip`: blocks of quantised values.

use std::path::PathBuf;

use apr_engine::Dtype;
use apr_engine::format::safetensors;
use apr_engine::quant;

use super::context::{JudgeContext, Look};
use super::look::Random;
use crate::contract::check::{DequantOracle, QuantizeRoundtrip};
use crate::verdict::{Evidence, Limit, Measure, Verdict};

/// Columns of the rows of the round trip: whole blocks of every type.
const COLUMNS: usize = 512;

/// How much worse than the bound a single row may be: no more than the spread of 512 normal values explains.
const WORST_ROW: f64 = 1.5;

/// Recorded block types, named as their files.
const RECORDED: &[&str] = &[
    "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "Q8_K",
];

/// Recorded blocks must dequantise to the recorded bits.
pub(super) fn dequant_oracle(check: &DequantOracle, ctx: &JudgeContext) -> Look<Verdict> {
    let named: Vec<String> = if check.dtypes.is_empty() {
        RECORDED.iter().map(|&name| name.to_owned()).collect()
    } else {
        check.dtypes.clone()
    };
    let mut differing = Vec::new();
    let (mut values, mut blocks) = (0u64, 0u64);
    for name in &named {
        let broken = |what: String| Box::new(Verdict::broken(format!("oracle of {name}: {what}")));
        let dtype = Dtype::from_name(name).ok_or_else(|| broken("no such dtype".into()))?;
        let file = PathBuf::from(format!("oracle/quant/{}.safetensors", name.to_lowercase()));
        let bytes = ctx.fixture(&file, None, "oracle")?;
        let container = safetensors::parse(&bytes).map_err(|error| broken(error.to_string()))?;
        let find = |tensor: &str| {
            container.tensor(tensor).ok_or_else(|| broken(format!("{tensor} is missing")))
        };
        let (stored, expected) = (find("dequant.blocks")?.view, find("dequant.expected")?.view);
        let cols = expected.cols();
        let mut row = vec![0.0f32; cols];
        for index in 0..stored.rows() {
            let block = stored.row(index).unwrap_or_default();
            let wanted = expected.row(index).unwrap_or_default();
            blocks += 1;
            if let Err(error) = quant::dequantize_row(dtype, block, &mut row) {
                differing.push(format!("{name} block {index}: {error}"));
                continue;
            }
            for (at, (value, raw)) in row.iter().zip(wanted.chunks_exact(4)).enumerate() {
                values += 1;
                if value.to_le_bytes() != *raw {
                    differing.push(format!("{name} block {index} value {at}: {value:e}"));
                }
            }
        }
    }
    let summary = format!(
        "{} of {values} values in {blocks} blocks of {} types differ in their bits",
        differing.len(),
        named.len()
    );
    let mut evidence = Evidence::new(values, summary).measure(Measure::judged(
        "bits-differ",
        differing.len() as f64,
        Limit::Exactly(0.0),
    ));
    evidence.details = differing.into_iter().take(8).collect();
    Ok(evidence.verdict())
}

/// Seeded normal rows, quantised and dequantised, stay within the bound of their type.
pub(super) fn roundtrip(check: &QuantizeRoundtrip, ctx: &JudgeContext) -> Verdict {
    let Some(dtype) = Dtype::from_name(&check.dtype) else {
        return Verdict::broken(format!("no dtype is called {}", check.dtype));
    };
    let mut random = Random::new(ctx.seed, "roundtrip");
    let (mut worst, mut sum) = (0.0f64, 0.0f64);
    for index in 0..check.rows {
        let scale = 10f64.powi((index % 7) as i32 - 3);
        let values: Vec<f32> = (0..COLUMNS).map(|_| (random.normal() * scale) as f32).collect();
        let mut back = vec![0.0f32; COLUMNS];
        let done = quant::quantize(dtype, COLUMNS, &values).and_then(|mut bytes| {
            if let Some(plant) = &ctx.plant {
                plant.mutate_blocks(dtype.block_bytes(), &mut bytes);
            }
            quant::dequantize_row(dtype, &bytes, &mut back)
        });
        if let Err(error) = done {
            return super::look::all_of(1, "rows quantised", vec![error.to_string()]);
        }
        let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        let error: f64 =
            values.iter().zip(&back).map(|(v, b)| (f64::from(*v) - f64::from(*b)).powi(2)).sum();
        worst = worst.max((error / square).sqrt());
        sum += error / square;
    }
    let bound = check.tolerance.at_most.get();
    let typical = (sum / check.rows as f64).sqrt();
    Evidence::new(
        (check.rows * COLUMNS) as u64,
        format!(
            "relative error {:.3} % of {:.3} % over {} rows of {COLUMNS}, worst row {:.3} %",
            100.0 * typical,
            100.0 * bound,
            check.rows,
            100.0 * worst
        ),
    )
    .measure(Measure::judged("rmse-of-rms", typical, Limit::AtMost(bound)))
    .measure(Measure::judged("rmse-of-rms-worst-row", worst, Limit::AtMost(WORST_ROW * bound)))
    .verdict()
}

//! Speed as text of at most 80 columns.

use std::fmt::Write as _;

use super::escape::visible;
use super::number;
use crate::bench::series::CV_AT_MOST;
use crate::bench::{Bench, ComputeRoof, Likeness, Outcome, Phase, Ratio, Series, Together};

/// Sites that are told of.
const SITES: usize = 12;

/// Renders what was measured.
pub fn render(bench: &Bench) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut out, bench);
    out
}

fn write_all(out: &mut String, bench: &Bench) -> std::fmt::Result {
    let cache = bench.cache_type.0;
    writeln!(out, "{}, {cache} cache; medians with their 95 % intervals", bench.backend)?;
    writeln!(out, "load        {}  to the first logits", time(&bench.load))?;
    speed(out, "prefill", &bench.prefill)?;
    compute(out, bench.compute.as_ref())?;
    writeln!(
        out,
        "first token {}  behind {} tokens",
        time(&bench.first_token.time),
        bench.first_token.tokens
    )?;
    speed(out, "decode", &bench.decode)?;
    let each = &bench.decode.time;
    writeln!(out, "            {}  per token, p99 {} ms", time(each), number(each.p99_ms))?;
    together(out, bench.together.as_ref())?;
    if let Some(roofline) = &bench.roofline {
        writeln!(
            out,
            "memory      {:.0} % of reading alone: {} of {} GB/s, {} MB per token",
            100.0 * roofline.fraction,
            number(roofline.decode_bytes_per_second / 1e9),
            number(roofline.read_bytes_per_second / 1e9),
            number(roofline.bytes_per_token as f64 / 1e6),
        )?;
    }
    if let Some(share) = bench.smallest_detectable {
        writeln!(out, "noise       slowdowns from {} % on could be found", number(100.0 * share))?;
    }
    let phases = [
        ("load", &bench.load),
        ("prefill", &bench.prefill.time),
        ("first token", &bench.first_token.time),
        ("decode", &bench.decode.time),
    ];
    for (name, series) in phases.into_iter().filter(|(_, series)| !series.accepted) {
        writeln!(
            out,
            "rejected    {name}: varies by {:.0} % ({:.0} % accepted), {} rounds",
            100.0 * series.cv,
            100.0 * CV_AT_MOST,
            series.rejected.len() + 1,
        )?;
    }
    let covers = 100.0 * bench.breakdown.covers;
    writeln!(out, "\nsite            us/token   share   passes   ({covers:.1} % of a token)")?;
    for site in bench.breakdown.sites.iter().take(SITES) {
        let share = 100.0 * site.share;
        writeln!(
            out,
            "{:<14} {:>9.1}  {share:>5.1} %  {:>6}",
            site.site, site.mean_us, site.passes
        )?;
    }
    Ok(())
}

fn compute(out: &mut String, roof: Option<&ComputeRoof>) -> std::fmt::Result {
    let Some(roof) = roof else { return Ok(()) };
    writeln!(
        out,
        "            {:.0} % of multiplying alone: {} G bytes, {} G floats a second",
        100.0 * roof.fraction,
        number(roof.per_second.bytes / 1e9),
        number(roof.per_second.floats / 1e9),
    )
}

fn together(out: &mut String, together: Option<&Together>) -> std::fmt::Result {
    let Some(together) = together else { return Ok(()) };
    writeln!(
        out,
        "together    {:>8} tokens/s  {} sequences behind {}",
        number(together.tokens_per_second),
        together.sequences,
        together.position,
    )?;
    let Some(ratio) = &together.against_one else { return Ok(()) };
    writeln!(
        out,
        "            {:>8.2} times one alone  ({:.2} to {:.2}, 99 %), {} pairs in turns",
        ratio.ratio, ratio.lower, ratio.upper, ratio.pairs
    )
}

fn time(series: &Series) -> String {
    format!(
        "{:>8} ms  ({} to {})",
        number(series.median_ms),
        number(series.lower_ms),
        number(series.upper_ms)
    )
}

fn speed(out: &mut String, name: &str, phase: &Phase) -> std::fmt::Result {
    let at = |ms: f64| number(phase.tokens as f64 / (ms / 1e3));
    writeln!(
        out,
        "{name:<11} {:>8} tokens/s  ({} to {})  {} tokens behind {}",
        number(phase.tokens_per_second),
        at(phase.time.upper_ms),
        at(phase.time.lower_ms),
        if phase.tokens == 1 { phase.time.samples } else { phase.tokens },
        phase.position,
    )
}

/// A line about memory: the high-water mark, the file, and the cache when full.
pub fn memory(peak: u64, file: u64, cache: u64) -> String {
    let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
    format!("\npeak memory {} MiB; file {} MiB, cache {} MiB\n", mib(peak), mib(file), mib(cache))
}

/// Lines about the ratios to `name`, and about what both answered.
pub fn ratios(name: &str, likeness: Option<&Likeness>, ratios: &[(&str, Option<Ratio>)]) -> String {
    let mut out = format!("\ntimes as fast as {} (99 %)\n", visible(name));
    if let Some(Likeness { tokens, alike, nmse }) = likeness {
        let apart = nmse.map_or_else(
            || "logits cannot be compared".to_owned(),
            |nmse| format!("logits {} apart (NMSE)", number(nmse)),
        );
        // Writing to a string cannot fail.
        let _ = writeln!(out, "answers     {alike} of {tokens} greedy tokens alike; {apart}");
    }
    for (phase, ratio) in ratios {
        let line = ratio.as_ref().map_or_else(|| "nothing was measured".to_owned(), told);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{phase:<11} {line}");
    }
    out
}

fn told(ratio: &Ratio) -> String {
    let follows = match ratio.outcome {
        Outcome::Slower => "slower",
        Outcome::Faster => "faster",
        Outcome::Equal => "equal",
        Outcome::Open => "too noisy to tell",
    };
    format!(
        "{:>8.3}  ({:.3} to {:.3})  {follows}, {} pairs in turns",
        ratio.ratio, ratio.lower, ratio.upper, ratio.pairs
    )
}

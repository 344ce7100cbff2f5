//! A filled-in sheet as text of at most 80 columns.

use std::fmt::Write as _;

use super::escape::visible;
use super::number;
use super::term::{Detail, Ink, Style};
use crate::sheet::brick::BrickTime;
use crate::sheet::tally::{Score, Standing};

/// Renders `score`: a line for each part, the total, the combined score, and what did not earn its points. With
/// [`Detail::Verbose`] every claim with its evidence and every brick.
pub fn render(score: &Score, style: Style) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut out, score, style);
    out
}

fn write_all(out: &mut String, score: &Score, style: Style) -> std::fmt::Result {
    for part in &score.parts {
        let open = part.applicable - part.holds;
        write!(out, "{:<8} {:>3}/{:<3}", part.part, part.points, part.points_max)?;
        write!(out, " {:>2} of {:>2} claims hold", part.holds, part.applicable)?;
        if open > 0 {
            write!(out, "; {} refuted, {} not measured", part.fails, part.not_measured)?;
        }
        writeln!(out)?;
    }
    let [share, most] = score.unmeasured.map(|share| number(share * 100.0));
    let total = match (score.total, &score.grade) {
        (Some(total), Some(grade)) => format!("{:<8} {total:>3}/100 {grade}", "total"),
        _ => format!("total    not scored: {share} % of the claims not measured, {most} % allowed"),
    };
    let red = !score.refuted.is_empty() || score.total.is_none();
    writeln!(out, "{}", style.paint(if red { Ink::Red } else { Ink::Green }, &total))?;
    if !score.refuted.is_empty() {
        writeln!(out, "refuted, so the grade is F: {}", score.refuted.join(", "))?;
    }
    let bricks = &score.bricks;
    match (&bricks.total, &bricks.why_not) {
        (Some(total), _) => writeln!(
            out,
            "{:<8} {total:>3}/100 performance {}, efficiency {}, correctness {}, stability {}",
            "bricks",
            number(bricks.performance),
            number(bricks.efficiency),
            number(bricks.correctness),
            number(bricks.stability),
        )?,
        (None, why) => {
            let why = why.as_deref().unwrap_or("nothing was timed");
            writeln!(out, "bricks   not scored: {}", visible(why))?;
        }
    }
    if let Some(all) = &score.combined {
        let parts =
            format!("of claims {}, format {}, bricks {}", all.claims, all.parts, all.bricks);
        writeln!(out, "{:<8} {:>3}/100 {} {parts}", "combined", all.total, all.grade)?;
    }
    if style.detail == Detail::Quiet {
        return Ok(());
    }
    if style.detail == Detail::Verbose {
        bricks.bricks.iter().try_for_each(|brick| write_brick(out, brick))?;
    }
    for claim in &score.claims {
        let (mark, shown) = match claim.standing {
            Standing::Holds => ("holds", style.detail == Detail::Verbose),
            Standing::Fails => ("REFUTED", true),
            Standing::NotMeasured => ("not measured", true),
            Standing::NotApplicable => ("does not apply", style.detail == Detail::Verbose),
        };
        if shown {
            writeln!(out, "{} {mark}: {}", claim.id, visible(&claim.title))?;
            for line in &claim.evidence {
                writeln!(out, "    {}", visible(line))?;
            }
        }
    }
    Ok(())
}

fn write_brick(out: &mut String, brick: &BrickTime) -> std::fmt::Result {
    let micro = |value: Option<f64>| value.map_or("-".to_owned(), number);
    writeln!(
        out,
        "  {:<12} {:>9} us of {:>4} us, cv {:>6} over {} tokens, {} rounds rejected, {}",
        brick.brick,
        micro(brick.mean_us),
        number(brick.budget_us),
        micro(brick.cv),
        brick.samples,
        brick.rejected.len(),
        brick.score,
    )
}

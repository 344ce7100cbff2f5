//! A way through formats for readers: as text, and as one HTML file without scripts.

use std::fmt::Write as _;

use super::journey::{Journey, Leg};
use crate::report::escape::{html, visible};
use crate::report::html::{FOOT, head};
use crate::report::number;

/// Losses of a leg that are listed as text; the rest is counted.
const LISTED: usize = 8;

/// A line for each leg and each loss, then what came of it.
pub fn render(journey: &Journey) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, journey);
    out
}

fn write_text(out: &mut String, journey: &Journey) -> std::fmt::Result {
    for (place, leg) in journey.legs.iter().enumerate() {
        writeln!(out, "leg {} {}: {}", place + 1, ends(leg), kept(leg))?;
        write_losses(out, leg)?;
    }
    if let Some(whole) = &journey.whole {
        writeln!(out, "whole {}: {}", ends(whole), kept(whole))?;
        write_losses(out, whole)?;
    }
    writeln!(out, "{}", conclusion(journey))
}

fn write_losses(out: &mut String, leg: &Leg) -> std::fmt::Result {
    for loss in leg.lost.iter().take(LISTED) {
        writeln!(out, "    lost: {}", visible(loss))?;
    }
    match leg.lost.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(out, "    and {more} more"),
    }
}

fn ends(leg: &Leg) -> String {
    format!("{} to {}", visible(&leg.from), visible(&leg.to))
}

/// What a leg kept, each count with what it is of.
fn kept(leg: &Leg) -> String {
    if leg.weights == 0 {
        return "not gone".to_owned();
    }
    let mut parts = vec![format!("{} of {} weights byte for byte", leg.bytes_kept, leg.weights)];
    if leg.values_kept > 0 {
        parts.push(format!("{} value for value", leg.values_kept));
    }
    if let Some(worst) = &leg.worst {
        let (nmse, allowed) = (number(worst.nmse), number(worst.allowed));
        parts.push(format!(
            "{} rounded, worst nmse {nmse} of {allowed} ({})",
            leg.rounded, worst.slot
        ));
    }
    parts.push(format!("{} facts and texts compared", leg.facts));
    parts.join(", ")
}

/// What came of it, in one sentence.
fn conclusion(journey: &Journey) -> String {
    let lost = journey.first_loss.and_then(|place| Some((place, journey.legs.get(place)?)));
    match (lost, &journey.whole) {
        (Some((place, leg)), _) => {
            format!("the first leg that loses something is leg {}, {}", place + 1, ends(leg))
        }
        (None, Some(whole)) if whole.loses() => {
            "no leg loses anything by itself, the whole way does".to_owned()
        }
        (None, Some(_)) => "nothing is lost".to_owned(),
        (None, None) => "no leg was gone".to_owned(),
    }
}

/// Renders `journey` of the model that is called `name`.
pub fn page(journey: &Journey, name: &str) -> String {
    let mut out = head(&format!("{name} through formats"));
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, journey, name);
    out.push_str(FOOT);
    out
}

fn write_page(out: &mut String, journey: &Journey, name: &str) -> std::fmt::Result {
    let class = if journey.keeps() { "corroborated" } else { "falsified" };
    writeln!(
        out,
        "<header><div><h1>A model through formats</h1><p><code>{}</code></p>\
         <p><span class=\"chip {class}\">{class}</span></p></div></header>\
         <section><h2>Conclusion</h2><p>{}</p></section>",
        html(name),
        html(&conclusion(journey))
    )?;
    writeln!(
        out,
        "<section><h2>Legs</h2><div class=\"wide\"><table><tr><th>leg</th><th>status</th><th class=\"end\">weights</th>\
         <th class=\"end\">same bytes</th><th class=\"end\">same values</th><th class=\"end\">rounded</th>\
         <th class=\"end\">worst nmse</th><th class=\"end\">allowed</th><th class=\"end\">facts</th></tr>"
    )?;
    for leg in journey.legs.iter().chain(&journey.whole) {
        let class = if leg.loses() { "falsified" } else { "corroborated" };
        let figure = |value: Option<f64>| value.map_or(String::new(), number);
        writeln!(
            out,
            "<tr><td class=\"id\">{} to {}</td><td><span class=\"chip {class}\">{class}</span></td><td class=\"end\">{}</td>\
             <td class=\"end\">{}</td><td class=\"end\">{}</td><td class=\"end\">{}</td><td class=\"end\">{}</td>\
             <td class=\"end\">{}</td><td class=\"end\">{}</td></tr>",
            html(&leg.from),
            html(&leg.to),
            leg.weights,
            leg.bytes_kept,
            leg.values_kept,
            leg.rounded,
            figure(leg.worst.as_ref().map(|worst| worst.nmse)),
            figure(leg.worst.as_ref().map(|worst| worst.allowed)),
            leg.facts
        )?;
    }
    writeln!(out, "</table></div></section>")?;
    let losses: Vec<&String> =
        journey.legs.iter().chain(&journey.whole).flat_map(|leg| &leg.lost).collect();
    if losses.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section><h2>Lost</h2><ul>")?;
    for loss in losses {
        writeln!(out, "<li>{}</li>", html(loss))?;
    }
    writeln!(out, "</ul></section>")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(lost: &[&str]) -> Leg {
        Leg {
            from: "gguf".into(),
            to: "apr".into(),
            weights: 3,
            bytes_kept: 3,
            values_kept: 0,
            rounded: 0,
            worst: None,
            facts: 5,
            lost: lost.iter().map(|loss| (*loss).to_owned()).collect(),
        }
    }

    #[test]
    fn the_first_leg_that_loses_is_named_and_text_of_the_model_is_escaped() {
        let journey = Journey {
            legs: vec![leg(&[]), leg(&["<b>\u{1b}[31m"])],
            whole: Some(leg(&[])),
            first_loss: Some(1),
        };
        let text = render(&journey);
        assert!(text.contains("leg 2, gguf to apr") && !text.contains('\u{1b}'), "{text}");
        let page = page(&journey, "<i>");
        assert!(!page.contains("<b>") && !page.contains("<i>") && page.contains("falsified"));
    }

    #[test]
    fn nothing_gone_is_nothing_kept() {
        let journey = Journey::default();
        assert!(!journey.keeps());
        assert!(render(&journey).contains("no leg was gone"));
    }
}

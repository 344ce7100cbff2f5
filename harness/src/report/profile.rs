//! A profile as text of at most 80 columns, and as a page with a flame graph.

use std::fmt::Write as _;

use super::escape::html;
use super::html::{FOOT, head};
use super::number;
use crate::profile::{Layer, LayerBrick, Profile};

/// Width of the graph and height of one of its rows.
const WIDTH: f64 = 1000.0;
const ROW: f64 = 26.0;
/// Width of a character, about.
const CHARACTER: f64 = 7.0;

/// Renders what was measured.
pub fn render(profile: &Profile) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, profile);
    out
}

fn write_text(out: &mut String, profile: &Profile) -> std::fmt::Result {
    for line in facts(profile) {
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "\n{:<15} {:>10} {:>8} {:>8} {:>10} {:>10} {:>7}",
        "brick", "us/token", "share", "runs", "min us", "max us", "cv"
    )?;
    for brick in &profile.bricks {
        let cv = brick.cv.map_or("-".to_owned(), |cv| format!("{:.1} %", 100.0 * cv));
        writeln!(
            out,
            "{:<15} {:>10.1} {:>6.1} % {:>8} {:>10} {:>10} {cv:>7}",
            brick.name,
            brick.total_ns as f64 / 1e3 / profile.total_tokens.max(1) as f64,
            100.0 * brick.share,
            brick.count,
            number(brick.min_ns as f64 / 1e3),
            number(brick.max_ns as f64 / 1e3),
        )?;
    }
    Ok(())
}

/// What was measured, how often, and what that cost.
fn facts(profile: &Profile) -> Vec<String> {
    let tokens = profile.total_tokens;
    let of_a_token = profile.total_ns as f64 / 1e3 / tokens.max(1) as f64;
    let mut facts = vec![
        format!(
            "{}, {} cache, measured by a clock at every site",
            profile.backend, profile.cache_type.0
        ),
        format!(
            "{:?}: {} passes, {tokens} tokens behind {}; {} us per token",
            profile.phase,
            profile.passes,
            profile.position,
            number(of_a_token)
        ),
        format!("the operations add up to {:.1} % of that", 100.0 * profile.covers),
    ];
    facts.extend(profile.overhead.map(|cost| {
        format!(
            "the clocks cost {:.1} % ({:.1} to {:.1} with 95 %; {} pairs in turns)",
            100.0 * cost.share,
            100.0 * cost.lower,
            100.0 * cost.upper,
            cost.pairs
        )
    }));
    facts
}

/// One HTML file: the passes, their layers, and the operations of these, each as wide as the time it took.
pub fn page(profile: &Profile, model: &str) -> String {
    let mut out = head(&format!("apr profile: {model}"));
    // Writing to a string cannot fail.
    let _ = write_page(&mut out, profile, model);
    out.push_str(FOOT);
    out
}

fn write_page(out: &mut String, profile: &Profile, model: &str) -> std::fmt::Result {
    writeln!(out, "<header><div><h1>{}</h1>", html(model))?;
    for fact in facts(profile) {
        writeln!(out, "<p>{}</p>", html(&fact))?;
    }
    writeln!(out, "</div></header>")?;
    writeln!(out, "<section><h2>By layer</h2>{}</section>", flame(profile))?;
    writeln!(
        out,
        "<section><h2>By brick</h2><div class=\"wide\"><table><tr><th>brick<th class=\"end\">us per token\
         <th class=\"end\">share<th class=\"end\">runs<th class=\"end\">values per second</tr>"
    )?;
    for brick in &profile.bricks {
        let speed = brick.total_elements as f64 / (brick.total_ns.max(1) as f64 / 1e9);
        writeln!(
            out,
            "<tr><td class=\"id\">{}<td class=\"end\">{:.1}<td class=\"end\">{:.1} %<td class=\"end\">{}\
             <td class=\"end\">{}</tr>",
            html(&brick.name),
            brick.total_ns as f64 / 1e3 / profile.total_tokens.max(1) as f64,
            100.0 * brick.share,
            brick.count,
            number(speed)
        )?;
    }
    writeln!(out, "</table></div></section>")
}

/// Passes on top, layers below them, operations below these, in the order of computation.
fn flame(profile: &Profile) -> String {
    let whole = profile.total_ns.max(1) as f64;
    let tokens = profile.total_tokens.max(1) as f64;
    let mut frames = String::new();
    let mut frame = |row: u8, start: u64, took: u64, name: &str, class: &str| {
        let (x, width) = (WIDTH * start as f64 / whole, WIDTH * took as f64 / whole);
        let (y, share) = (ROW * f64::from(row), 100.0 * took as f64 / whole);
        let title = format!("{name}: {:.1} us per token, {share:.2} %", took as f64 / 1e3 / tokens);
        let label = label(name, (width / CHARACTER) as usize);
        let _ = write!(
            frames,
            r#"<g><title>{}</title><rect class="{class}" x="{x:.2}" y="{y}" width="{width:.2}" height="{}"/><text x="{:.2}" y="{}">{}</text></g>"#,
            html(&title),
            ROW - 1.0,
            x + 3.0,
            y + 17.0,
            html(&label),
        );
    };
    frame(0, 0, profile.total_ns, &format!("{:?}", profile.phase), "pass");
    let mut start = 0;
    for layer in &profile.layers {
        frame(1, start, layer.total_ns, &layer_name(layer), "layer");
        let mut within = start;
        for LayerBrick { name, total_ns, .. } in &layer.bricks {
            frame(2, within, *total_ns, name, class(name));
            within += total_ns;
        }
        start += layer.total_ns;
    }
    let height = 3.0 * ROW;
    format!(
        r#"<svg class="flame" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Time by layer and operation">{frames}</svg>"#
    )
}

/// As much of `name` as there is room for; two letters would say nothing.
fn label(name: &str, room: usize) -> String {
    match name.chars().count() {
        count if count <= room => name.to_owned(),
        _ if room < 3 => String::new(),
        _ => name.chars().take(room - 1).chain(['…']).collect(),
    }
}

fn layer_name(layer: &Layer) -> String {
    let outside = || layer.bricks.first().map_or("", |brick| brick.name.as_str()).to_owned();
    layer.layer.map_or_else(outside, |layer| format!("layer {layer}"))
}

/// Colours tell products from attention from the rest.
fn class(brick: &str) -> &'static str {
    match brick {
        "qkv" | "o-proj" | "ffn-gate-up" | "ffn-down" | "logits" => "product",
        "attention" | "rope" => "attention",
        _ => "rest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::check::CacheTypeName;
    use crate::profile::{Brick, Overhead, Phase};

    fn profile() -> Profile {
        let layer = |layer, parts: &[(&str, u64)]| Layer {
            layer,
            total_ns: parts.iter().map(|(_, took)| took).sum(),
            bricks: parts
                .iter()
                .map(|(name, took)| LayerBrick {
                    name: (*name).to_owned(),
                    site: (*name).to_owned(),
                    total_ns: *took,
                })
                .collect(),
        };
        Profile {
            backend: "simd (avx2), 2 threads".to_owned(),
            cache_type: CacheTypeName::default(),
            phase: Phase::Decode,
            passes: 50,
            total_tokens: 50,
            position: 138,
            total_ns: 1_000_000,
            bricks: vec![Brick {
                name: "<qkv>".to_owned(),
                count: 100,
                total_ns: 900_000,
                min_ns: 8_000,
                max_ns: 12_345,
                total_elements: 90_000,
                share: 0.9,
                cv: None,
            }],
            layers: vec![
                layer(None, &[("embed", 100_000)]),
                layer(Some(0), &[("qkv", 500_000), ("attention", 300_000)]),
                layer(None, &[("<logits>", 90_000)]),
            ],
            covers: 0.99,
            overhead: Some(Overhead { share: 0.012, lower: -0.004, upper: 0.02, pairs: 50 }),
        }
    }

    #[test]
    fn the_text_fits_eighty_columns_and_says_what_the_clocks_cost() {
        let text = render(&profile());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("the clocks cost 1.2 % (-0.4 to 2.0 with 95 %; 50 pairs in turns)"));
        assert!(text.contains("18.0   90.0 %      100          8      12.35       -"), "{text}");
    }

    #[test]
    fn a_frame_is_as_wide_as_its_time_and_lies_under_its_layer() {
        let page = page(&profile(), "model");
        for frame in [
            r#"class="layer" x="100.00" y="26" width="800.00""#,
            r#"class="product" x="100.00" y="52" width="500.00""#,
            r#"class="attention" x="600.00" y="52" width="300.00""#,
        ] {
            assert!(page.contains(frame), "{frame}: {page}");
        }
        assert!(page.contains("qkv: 10.0 us per token, 50.00 %"));
    }

    #[test]
    fn a_name_that_has_no_room_is_cut_or_left_out() {
        assert_eq!(
            [9, 4, 3, 2, 0].map(|room| label("layer 12", room)),
            ["layer 12", "lay…", "la…", "", ""]
        );
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_page() {
        let page = page(&profile(), "<script>");
        assert!(
            !page.contains("<script>") && !page.contains("<logits>") && !page.contains("<qkv>")
        );
    }
}

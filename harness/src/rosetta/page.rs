//! Divergence drawn by layer and position, as one HTML file without scripts.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::sites::{SiteReport, SiteStatus};
use super::table::conclusion;
use crate::report::escape::html;
use crate::report::html::{FOOT, head};
use crate::report::number;

/// Side of a square, and of the space around it.
const CELL: usize = 13;
/// Where the names of sites end.
const LABELS: usize = 170;
/// Height of the line of positions.
const HEAD: usize = 22;
/// Errors from which on a square has the deeper of two neighbouring shades, as powers of ten.
const SHADES: [i32; 6] = [-12, -9, -6, -4, -2, -1];

/// Renders `comparison`.
pub fn render(comparison: &Comparison, prompt: &str) -> String {
    let mut out = head(&format!("{} against {}", comparison.target, comparison.source));
    // Writing to a string cannot fail.
    let _ = write_body(&mut out, comparison, prompt);
    out.push_str(FOOT);
    out
}

fn write_body(out: &mut String, comparison: &Comparison, prompt: &str) -> std::fmt::Result {
    let class = match (comparison.diverges(), comparison.is_complete()) {
        (true, _) => "falsified",
        (false, false) => "broken",
        (false, true) => "corroborated",
    };
    writeln!(out, "<header><div><h1>Where two sides part</h1>")?;
    for (side, name) in [("source", &comparison.source), ("target", &comparison.target)] {
        writeln!(out, "<p>{side} <code>{}</code></p>", html(name))?;
    }
    writeln!(out, "<p>prompt <code>{}</code></p>", html(prompt))?;
    let lines: Vec<String> = conclusion(comparison).lines().map(html).collect();
    writeln!(out, "<p><span class=\"chip {class}\">{class}</span></p></div></header>")?;
    writeln!(out, "<section><h2>Conclusion</h2><pre>{}</pre></section>", lines.join("\n"))?;
    for (title, note, local) in [
        ("Local error", "What each operation of the target makes of the source's inputs.", true),
        ("Total error", "The two passes against each other, inherited errors included.", false),
    ] {
        writeln!(
            out,
            "<section><h2>{title}</h2><p class=\"note\">{note} Sites downwards, positions to the right.</p>\
             <div class=\"wide\">{}</div>{}</section>",
            map(&comparison.sites, title, local),
            legend()
        )?;
    }
    write_table(out, &comparison.sites)
}

/// One square for each site and position.
fn map(sites: &[SiteReport], title: &str, local: bool) -> String {
    let errors = |site: &SiteReport| {
        if local { site.local_by_position.clone() } else { site.total_by_position.clone() }
    };
    let positions = sites.iter().map(|site| errors(site).len()).max().unwrap_or(0);
    let mut body = String::new();
    for position in (0..positions).step_by(4) {
        let x = LABELS + position * CELL;
        // Writing to a string cannot fail.
        let _ = write!(body, r#"<text x="{x}" y="{}">{position}</text>"#, HEAD - 8);
    }
    for (line, site) in sites.iter().enumerate() {
        let y = HEAD + line * CELL;
        let _ = write!(
            body,
            r#"<text class="end" x="{}" y="{}">{}</text>"#,
            LABELS - 6,
            y + CELL - 3,
            html(&site.site)
        );
        for (position, error) in errors(site).into_iter().enumerate() {
            let (class, shade) = paint(error, site.status);
            let shown = error.map_or("infinite".to_owned(), number);
            let _ = write!(
                body,
                r#"<rect class="{class}" fill-opacity="{shade}" x="{}" y="{y}" width="{w}" height="{w}" rx="2"><title>{} position {position}: {shown}</title></rect>"#,
                LABELS + position * CELL,
                html(&site.site),
                w = CELL - 1
            );
        }
    }
    let (width, height) = (LABELS + positions * CELL + 8, HEAD + sites.len() * CELL + 4);
    format!(
        r#"<svg class="matrix" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{}">{body}</svg>"#,
        html(title)
    )
}

/// Class and opacity of an error: its shade tells the size, its colour whether the site's own operation is to blame.
fn paint(error: Option<f64>, status: SiteStatus) -> (&'static str, f64) {
    let Some(error) = error else { return ("broken", 1.0) };
    if error <= 0.0 {
        return ("corroborated", 0.5);
    }
    let above = SHADES.iter().filter(|power| error >= 10f64.powi(**power)).count();
    let class = if status == SiteStatus::Mismatch { "falsified" } else { "inconclusive" };
    (class, 0.1 + 0.9 * above as f64 / SHADES.len() as f64)
}

fn legend() -> String {
    let powers: Vec<String> = SHADES.iter().map(|power| format!("1e{power}")).collect();
    format!(
        "<p class=\"note\">green: no error; amber: no more than rounding explains, or inherited; red: the site's own error is \
         more than allowed; deeper from {} on</p>",
        powers.join(", ")
    )
}

fn write_table(out: &mut String, sites: &[SiteReport]) -> std::fmt::Result {
    writeln!(
        out,
        "<section><h2>Sites</h2><div class=\"wide\"><table><tr><th>site</th><th>status</th><th class=\"end\">local</th>\
         <th class=\"end\">allowed</th><th class=\"end\">inherited</th><th class=\"end\">total</th>\
         <th class=\"end\">max diff</th><th class=\"end\">cosine</th></tr>"
    )?;
    let figure = |value: Option<f64>| value.map_or("infinite".to_owned(), number);
    for site in sites {
        let class = match site.status {
            SiteStatus::Match | SiteStatus::WithinThreshold => "corroborated",
            SiteStatus::Inherited => "inconclusive",
            SiteStatus::Mismatch => "falsified",
            SiteStatus::NotCompared => "skipped",
        };
        writeln!(
            out,
            "<tr><td class=\"id\">{}</td><td><span class=\"chip {class}\">{}</span></td><td class=\"end\">{}</td>\
             <td class=\"end\">{}</td><td class=\"end\">{}</td><td class=\"end\">{}</td><td class=\"end\">{}</td>\
             <td class=\"end\">{}</td></tr>",
            html(&site.site),
            site.status.name().to_lowercase(),
            figure(site.local.nmse_worst_row),
            number(site.allowed),
            figure(site.inherited),
            figure(site.total.nmse_worst_row),
            figure(site.total.max_abs),
            number(site.total.cosine)
        )?;
    }
    writeln!(out, "</table></div></section>")
}

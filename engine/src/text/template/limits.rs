//! What is refused before a template is parsed: size, chains and nesting, counted on the token stream.
//!
//! The parser and the interpreter recurse along chains (`a+b+c…`, `elif` after `elif`), so a small file
//! could exhaust any stack; block nesting is limited by the parser itself (150). Real templates stay below 70 links in one tag.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use crate::error::{Code, Error, Result};

/// Largest template; the largest real ones have about 20 KiB.
pub(super) const SOURCE_BYTES_MAX: usize = 64 << 10;
/// Most operators, accesses, calls and brackets in one tag.
const LINKS_MAX: usize = 200;
/// Most `elif` branches in a template.
const ELIFS_MAX: usize = 200;
/// Names that the rewritten template uses.
pub(super) const RESERVED: &str = "__apr_";

/// The delimiters and white-space rules of Hugging Face chat templates.
pub(super) fn syntax(trim: bool) -> Result<SyntaxConfig> {
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(trim).lstrip_blocks(trim);
    builder.build().map_err(|error| super::syntax_error(&error))
}

/// Refuses a template that is too large or whose chains are too long.
pub(super) fn check(source: &str) -> Result<()> {
    if source.len() > SOURCE_BYTES_MAX {
        return Err(limit("template size", SOURCE_BYTES_MAX, source.len()));
    }
    if source.contains(RESERVED) {
        return Err(Error::new(Code::TemplateSyntax)
            .expected(format!("no name with {RESERVED}, which is reserved")));
    }
    let (mut links, mut elifs) = (0, 0);
    let mut opens_block = false;
    for token in tokenize(source, false, syntax(true)?) {
        let (token, _) = token.map_err(|error| super::syntax_error(&error))?;
        match token {
            Token::VariableStart | Token::BlockStart => links = 0,
            Token::Ident("elif") if opens_block => elifs += 1,
            _ => {}
        }
        links += usize::from(is_link(&token));
        opens_block = matches!(token, Token::BlockStart);
        if links > LINKS_MAX {
            return Err(limit("operators in one tag", LINKS_MAX, links));
        }
        if elifs > ELIFS_MAX {
            return Err(limit("elif branches", ELIFS_MAX, elifs));
        }
    }
    Ok(())
}

/// Whether a token makes the parser or the interpreter go one level deeper.
fn is_link(token: &Token<'_>) -> bool {
    match token {
        Token::Ident(name) => matches!(*name, "and" | "or" | "not" | "in" | "is" | "if" | "else"),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::FloorDiv
        | Token::Pow
        | Token::Mod
        | Token::Tilde
        | Token::Pipe
        | Token::Dot
        | Token::Eq
        | Token::Ne
        | Token::Gt
        | Token::Gte
        | Token::Lt
        | Token::Lte
        | Token::BracketOpen
        | Token::ParenOpen
        | Token::BraceOpen => true,
        _ => false,
    }
}

fn limit(field: &str, most: usize, found: usize) -> Error {
    Error::new(Code::TemplateLimit).field(field).expected(format!("at most {most}")).found(found)
}

/// Turns `{% generation %}` … `{% endgeneration %}`, which only marks text for training, into a block
/// that always renders.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let inner = tag.trim_start_matches(['-', '+']);
        let sign = &tag[..tag.len() - inner.len()];
        let inner = inner.trim_start();
        let word = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (word, tail) = inner.split_at(word.unwrap_or(inner.len()));
        let replacement = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => {
                rest = tag;
                continue;
            }
        };
        out.push_str(sign);
        out.push(' ');
        out.push_str(replacement);
        rest = tail;
    }
    out.push_str(rest);
    out
}

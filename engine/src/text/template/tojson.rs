//! `tojson` as Hugging Face's chat templates have it: Python's `json.dumps` without HTML escaping.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::guard::Budget;

/// Widest indentation per level.
const INDENT_MAX: usize = 16;

/// The options of `json.dumps` that templates use.
struct Style {
    indent: Option<usize>,
    ensure_ascii: bool,
    sort_keys: bool,
    item: String,
    key: String,
}

/// The filter: `value|tojson(indent=…, ensure_ascii=…, sort_keys=…, separators=…)`.
pub(super) fn tojson(budget: &Budget, value: &Value, options: &Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        return Err(Error::new(ErrorKind::InvalidOperation, "indent is wider than 16"));
    }
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let text = |index| pair.get_item_by_index(index).map(|part| part.to_string());
            Some((text(0)?, text(1)?))
        }
        _ => None,
    };
    let item = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (item.to_owned(), ": ".to_owned()));
    let style = Style {
        indent,
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        item,
        key,
    };
    options.assert_all_used()?;
    budget.look(value)?;
    let mut out = String::new();
    style.write(value, 0, &mut out, budget)?;
    budget.string(out.len() as u64)?;
    Ok(Value::from(out))
}

impl Style {
    fn write(
        &self,
        value: &Value,
        level: usize,
        out: &mut String,
        budget: &Budget,
    ) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.collect::<Vec<_>>();
                self.list('[', ']', items.len(), level, out, budget, |index, out| {
                    self.write(&items[index], level + 1, out, budget)
                })?;
            }
            ValueKind::Map => {
                let mut keys = value.try_iter()?.collect::<Vec<_>>();
                if self.sort_keys {
                    keys.sort();
                }
                self.list('{', '}', keys.len(), level, out, budget, |index, out| {
                    let key = &keys[index];
                    match key.as_str() {
                        Some(text) => self.string(text, out),
                        None => self.string(&json_key(key), out),
                    }
                    out.push_str(&self.key);
                    self.write(&value.get_item(key)?, level + 1, out, budget)
                })?;
            }
            other => {
                let what = format!("{other} is not JSON serializable");
                return Err(Error::new(ErrorKind::BadSerialization, what));
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one writer for lists and objects")]
    fn list(
        &self,
        open: char,
        close: char,
        len: usize,
        level: usize,
        out: &mut String,
        budget: &Budget,
        mut write: impl FnMut(usize, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for index in 0..len {
            if index > 0 {
                out.push_str(&self.item);
            }
            self.new_line(level + 1, out);
            write(index, out)?;
            // The separators and indentation are the template's; what they grow is paid here.
            budget.spend((self.item.len() + self.key.len() + INDENT_MAX * level) as u64)?;
        }
        if len > 0 {
            self.new_line(level, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, level: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * level));
        }
    }

    fn string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                _ if character < ' ' || (self.ensure_ascii && !character.is_ascii()) => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        out.extend(["\\u", &format!("{unit:04x}")]);
                    }
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
}

/// Keys that are no strings, as `json.dumps` spells them.
fn json_key(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        _ => key.to_string(),
    }
}

//! An engine behind an OpenAI-style HTTP address: one greedy request, text and probabilities back.

use std::path::Path;
use std::time::Duration;

use apr_harness::rosetta::generated::{Generated, Step};
use serde_json::{Value, json};

use crate::failure::Failure;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long an engine may take for the whole answer.
const PATIENCE: Duration = Duration::from_mins(10);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    /// The prompt.
    pub(super) prompt: &'a str,
    /// Whether it is a user's message, rendered by the engine's chat template.
    pub(super) chat: bool,
    /// Most tokens of the answer.
    pub(super) tokens: usize,
    /// Likely tokens reported at each step.
    pub(super) top: usize,
    /// The model's name there; engines that serve one model take any.
    pub(super) model: &'a str,
}

/// The address that a side is, unless it is a path.
pub(super) fn address(side: &Path) -> Option<&str> {
    let text = side.to_str()?;
    (text.starts_with("http://") || text.starts_with("https://")).then_some(text)
}

/// Asks the engine at `address`.
pub(super) fn generate(address: &str, request: Request<'_>) -> Result<Generated, Failure> {
    if address.starts_with("https://") {
        return Err(Failure::usage(format_args!(
            "{address}: only http:// is spoken; put a local proxy in front of an encrypted address"
        )));
    }
    let base = address.trim_end_matches('/');
    // Most documentation shows addresses with the version at the end.
    let base = base.strip_suffix("/v1").unwrap_or(base);
    let (path, body) = if request.chat {
        let body = json!({
            "model": request.model,
            "messages": [{ "role": "user", "content": request.prompt }],
            "max_tokens": request.tokens,
            "temperature": 0,
            "logprobs": true,
            "top_logprobs": request.top,
        });
        ("/v1/chat/completions", body)
    } else {
        let body = json!({
            "model": request.model,
            "prompt": request.prompt,
            "max_tokens": request.tokens,
            "temperature": 0,
            "logprobs": request.top,
        });
        ("/v1/completions", body)
    };
    let url = format!("{base}{path}");
    let answer = post(&url, &body)?;
    parse(address, &answer).map_err(|what| Failure::broken(format_args!("{url}: {what}")))
}

fn post(url: &str, body: &Value) -> Result<Value, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::broken(format_args!("{url}: {error}"));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent
        .post(url)
        .header("Content-Type", "application/json")
        .send(body.to_string())
        .map_err(|error| failed(&error))?;
    let status = answer.status().as_u16();
    let text = answer
        .body_mut()
        .with_config()
        .limit(ANSWER_BYTES_MAX)
        .read_to_string()
        .map_err(|error| failed(&error))?;
    if status != 200 {
        let text = apr_engine::error::printable(&text);
        return Err(failed(&format_args!("the engine answers {status}: {text}")));
    }
    serde_json::from_str(&text).map_err(|error| failed(&format_args!("no JSON: {error}")))
}

/// Reads an answer in any of the three shapes that are in use.
pub(super) fn parse(name: &str, answer: &Value) -> Result<Generated, String> {
    let choice = answer.pointer("/choices/0").ok_or("no /choices/0 in the answer")?;
    let text = choice.get("text").or_else(|| choice.pointer("/message/content"));
    let text = text.and_then(Value::as_str).ok_or("no text in the answer")?;
    let logprobs = choice.get("logprobs").filter(|value| !value.is_null());
    let steps = match logprobs {
        None => Vec::new(),
        Some(logprobs) if logprobs.get("content").is_some() => listed(logprobs)?,
        Some(logprobs) => in_columns(logprobs)?,
    };
    Ok(Generated { name: name.to_owned(), text: text.to_owned(), steps })
}

/// One object for each token, as chat answers have them.
fn listed(logprobs: &Value) -> Result<Vec<Step>, String> {
    let pair = |entry: &Value| -> Option<(String, f64)> {
        Some((entry.get("token")?.as_str()?.to_owned(), entry.get("logprob")?.as_f64()?))
    };
    let content = logprobs.get("content").and_then(Value::as_array);
    let steps = content.into_iter().flatten().map(|entry| {
        let (text, logprob) = pair(entry)?;
        let top = entry.get("top_logprobs").and_then(Value::as_array);
        let top = top.into_iter().flatten().map(pair).collect::<Option<Vec<_>>>()?;
        Some(Step { text, logprob, top: best_first(top) })
    });
    steps.collect::<Option<_>>().ok_or_else(|| "a token without text or logprob".to_owned())
}

/// One list of tokens, one of probabilities and one of likely tokens, as plain completions have them.
fn in_columns(logprobs: &Value) -> Result<Vec<Step>, String> {
    let column = |name: &str| logprobs.get(name).and_then(Value::as_array);
    let tokens = column("tokens").ok_or("logprobs without tokens")?;
    let chosen = column("token_logprobs").ok_or("logprobs without token_logprobs")?;
    if tokens.len() != chosen.len() {
        return Err(format!("{} tokens with {} probabilities", tokens.len(), chosen.len()));
    }
    let none = Vec::new();
    let tops = column("top_logprobs").unwrap_or(&none);
    let steps = tokens.iter().zip(chosen).enumerate().map(|(at, (token, logprob))| {
        let top = tops.get(at).and_then(Value::as_object).into_iter().flatten();
        let top = top.map(|(text, value)| Some((text.clone(), value.as_f64()?)));
        Some(Step {
            text: token.as_str()?.to_owned(),
            logprob: logprob.as_f64()?,
            top: best_first(top.collect::<Option<Vec<_>>>()?),
        })
    });
    steps.collect::<Option<_>>().ok_or_else(|| "a token without text or logprob".to_owned())
}

fn best_first(mut top: Vec<(String, f64)>) -> Vec<(String, f64)> {
    top.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_in_use_gives_the_same_steps() {
        let columns = json!({ "choices": [{ "text": "4", "logprobs": {
            "tokens": ["4"], "token_logprobs": [-0.1], "top_logprobs": [{ "5": -2.0, "4": -0.1 }] } }] });
        let listed = json!([{ "token": "4", "logprob": -0.1, "top_logprobs": [
            { "token": "4", "logprob": -0.1 }, { "token": "5", "logprob": -2.0 }] }]);
        let chat = json!({ "choices": [{ "message": { "content": "4" }, "logprobs": { "content": listed } }] });
        let mixed = json!({ "choices": [{ "text": "4", "logprobs": { "content": listed } }] });
        let expected = parse("e", &columns).expect("columns");
        assert_eq!(expected.steps[0].top, [("4".to_owned(), -0.1), ("5".to_owned(), -2.0)]);
        assert_eq!(parse("e", &chat).as_ref(), Ok(&expected));
        assert_eq!(parse("e", &mixed).as_ref(), Ok(&expected));
    }

    #[test]
    fn an_answer_without_probabilities_is_text_alone() {
        let answer = json!({ "choices": [{ "text": "4", "logprobs": null }] });
        assert_eq!(parse("e", &answer).map(|found| found.steps.len()), Ok(0));
    }

    #[test]
    fn an_answer_that_is_none_says_why() {
        for answer in [
            json!({}),
            json!({ "choices": [{}] }),
            json!({ "choices": [{ "text": "4", "logprobs": { "tokens": ["4"], "token_logprobs": [] } }] }),
            json!({ "choices": [{ "text": "4", "logprobs": { "content": [{ "token": "4" }] } }] }),
        ] {
            assert!(parse("e", &answer).is_err(), "{answer}");
        }
    }
}

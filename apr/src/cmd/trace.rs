//! `apr run --trace`: the way to the answer, as an execution history.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use apr_engine::format::atomic;
use apr_engine::generate::Generation;
use apr_engine::model::{Lm, Model};
use apr_engine::{Code, Error};
use apr_harness::contract::check::CacheTypeName;
use apr_harness::provenance::sha256_parts;
use apr_harness::trace::payload::Configuration;
use apr_harness::trace::{Observed, Options, Sink, Tracer, beside};

use crate::cli::RunArgs;
use crate::failure::Failure;

/// A run that may be traced.
pub(crate) struct Traced<'a> {
    pub(crate) model: &'a Model,
    pub(crate) args: &'a RunArgs,
    pub(crate) prompt: &'a str,
    pub(crate) tokens: &'a [u32],
}

impl Traced<'_> {
    /// Gives what `answer` gives; writes the trace if one is asked for, also of a run that fails.
    pub(crate) fn run(
        &self,
        lm: &mut dyn Lm,
        answer: impl FnOnce(&mut dyn Lm) -> Result<Generation, Failure>,
    ) -> Result<Generation, Failure> {
        let args = &self.args.trace;
        let Some(sites) = &args.sites else { return answer(lm) };
        let config = self.model.config();
        let options = Options::new(sites, &args.layers, args.verbose, config);
        let options = options.map_err(Failure::usage)?;
        let Some(path) = &args.output else {
            let mut out = io::BufWriter::new(io::stderr());
            let mut result = None;
            self.write(&mut out, lm, options, answer, &mut result)?;
            out.flush()?;
            return result.unwrap_or_else(nothing_ran);
        };
        let mut result = None;
        let written = atomic::write(path, |out| {
            let written = self.write(out, lm, options, answer, &mut result);
            written.map_err(|error| Error::new(Code::Io).found(error))
        });
        // Why the run failed is worth more than why its trace did.
        let generation = result.transpose()?;
        written?;
        generation.map_or_else(nothing_ran, Ok)
    }

    /// Runs, and writes what happens on a thread of its own: the run does not wait for text.
    fn write(
        &self,
        out: &mut (impl Write + Send),
        lm: &mut dyn Lm,
        options: Options,
        answer: impl FnOnce(&mut dyn Lm) -> Result<Generation, Failure>,
        result: &mut Option<Result<Generation, Failure>>,
    ) -> io::Result<()> {
        out.write_all(b"{\"events\":[")?;
        let mut text = Vec::new();
        let mut separator: &[u8] = b"\n";
        let sink: Sink<'_> = Box::new(|event| {
            text.clear();
            text.extend_from_slice(std::mem::replace(&mut separator, b",\n"));
            serde_json::to_writer(&mut text, &event)?;
            out.write_all(&text)
        });
        let mut tracer = Tracer::new(self.model, options, sink, milliseconds);
        let characters = self.prompt.chars().count();
        let configuration = self.configuration(lm);
        let version = env!("CARGO_PKG_VERSION");
        tracer.start(version, &self.id(), configuration, characters, self.tokens);
        let answered = beside(&mut tracer, |listener| answer(&mut Observed::new(lm, listener)))?;
        let result = result.insert(answered);
        let cause = result.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let end = result.as_ref().map_err(|failure| match failure {
            Failure::Engine(error) => (error.code().number(), cause.as_str()),
            _ => ("apr", cause.as_str()),
        });
        tracer.finish(end)?;
        drop(tracer);
        out.write_all(b"\n]}\n")
    }

    fn configuration(&self, lm: &dyn Lm) -> Configuration {
        Configuration {
            backend: lm.backend_name(),
            cache_type: CacheTypeName(lm.cache_type()),
            context: lm.context(),
            max_tokens: self.args.max_tokens,
            temperature: self.args.temperature,
            seed: self.args.seed,
        }
    }

    /// A name for this run that no other one has, in the form of a UUID.
    fn id(&self) -> String {
        let (now, process) = (milliseconds().to_string(), std::process::id().to_string());
        let model = self.model.path().display().to_string();
        let hash = sha256_parts([now.as_str(), &process, &model, self.prompt]);
        let part = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
        [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
    }
}

/// The trace ended well though it never began.
fn nothing_ran() -> Result<Generation, Failure> {
    Err(Failure::broken("a trace was written of a run that never was"))
}

/// Milliseconds since 1970.
fn milliseconds() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

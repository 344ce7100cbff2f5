//! Tests of the engine through its public names, judged by recordings of independent implementations.

mod config;
mod conformance;
mod families;
mod fixture;
mod generate;
mod golden;
mod oracle;
mod paths;
mod probe;
mod sequences;
mod simd;
mod template;
mod tokenizer;
mod vocabulary;

//! Faults of generation, of parsers and writers, and of the text side: what surrounds the engine goes wrong.

use apr_engine::generate::{FinishReason, GenerateOptions, Generation, Sampling};
use apr_engine::{Code, Result};

use super::{FaultInfo, Plant, TextFault, surgery};

/// What goes wrong around an engine that computes rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    /// One token more than asked for, zero included.
    LimitPassed,
    /// Stop strings are not looked for.
    StopIgnored,
    /// The end token does not end the answer.
    EndIgnored,
    /// Pieces are cut where tokens end, inside characters.
    HalfCharacters,
    /// An empty prompt is answered.
    EmptyAnswered,
    /// Parameters out of range are replaced by good ones.
    ParametersReplaced,
    /// The probabilities of the last step are lost.
    StepLost,
    /// Missing bytes read as zero.
    ZeroFilled,
    /// The head of a file is remembered from an earlier reading.
    HeadRemembered,
    /// One byte of the weights is written wrongly.
    ByteMiswritten,
    /// A weight that is not finite is taken for the one it was.
    PoisonUnseen,
    /// A conversion that stops leaves what it has written.
    HalfFileLeft,
    /// The halves of each byte of a block are exchanged.
    NibblesSwapped,
    /// A defect of the text side.
    Text(TextFault),
}

/// A fault around the engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    info: FaultInfo,
    defect: Defect,
}

impl Around {
    /// What it is.
    pub(super) const fn info(&self) -> FaultInfo {
        self.info
    }
}

const fn around(
    id: &'static str,
    what: &'static str,
    incidents: &'static [&'static str],
    defect: Defect,
) -> Around {
    Around { info: super::library::info(id, what, incidents), defect }
}

/// Every fault around the engine.
pub(super) const ALL: &[Around] = &[
    around(
        "generation/limit-passed",
        "one token more than asked for is generated",
        &["FI-95"],
        Defect::LimitPassed,
    ),
    around(
        "generation/stop-ignored",
        "stop strings are not looked for",
        &["FI-50"],
        Defect::StopIgnored,
    ),
    around(
        "generation/end-ignored",
        "the end token does not end the answer",
        &["FI-50"],
        Defect::EndIgnored,
    ),
    around(
        "generation/half-characters",
        "streamed pieces are cut inside characters",
        &["FI-53"],
        Defect::HalfCharacters,
    ),
    around(
        "generation/empty-answered",
        "an empty prompt is answered with nothing",
        &["FI-53"],
        Defect::EmptyAnswered,
    ),
    around(
        "generation/parameters-replaced",
        "sampling parameters out of range are silently replaced",
        &["FI-95"],
        Defect::ParametersReplaced,
    ),
    around(
        "generation/step-lost",
        "the probabilities of the last step are lost",
        &["FI-128"],
        Defect::StepLost,
    ),
    around("parser/zero-filled", "missing bytes read as zero", &["FI-48"], Defect::ZeroFilled),
    around(
        "parser/head-remembered",
        "the head of a file is remembered from an earlier reading",
        &["FI-48"],
        Defect::HeadRemembered,
    ),
    around(
        "writer/byte-miswritten",
        "one byte of the weights is written wrongly",
        &["FI-36"],
        Defect::ByteMiswritten,
    ),
    around(
        "converter/poison-unseen",
        "a weight that is not finite is not noticed",
        &["FI-49"],
        Defect::PoisonUnseen,
    ),
    around(
        "converter/half-file-left",
        "a conversion that stops leaves what it has written",
        &["FI-49"],
        Defect::HalfFileLeft,
    ),
    around(
        "quant/nibbles-swapped",
        "the halves of each byte of a block are exchanged",
        &["FI-32"],
        Defect::NibblesSwapped,
    ),
    around(
        "text/markers-parsed",
        "control strings in a message become control tokens",
        &["FI-132"],
        Defect::Text(TextFault::MarkersParsed),
    ),
    around(
        "text/decoded-one-by-one",
        "characters that span several tokens are lost",
        &["FI-53"],
        Defect::Text(TextFault::DecodedOneByOne),
    ),
];

impl Plant for Around {
    fn id(&self) -> &str {
        self.info.id
    }

    fn mutate_request(&self, request: &mut GenerateOptions) {
        match self.defect {
            Defect::LimitPassed => request.max_tokens = request.max_tokens.map(|limit| limit + 1),
            Defect::StopIgnored => request.stop.clear(),
            Defect::EndIgnored => request.ignore_eos = true,
            Defect::ParametersReplaced => request.sampling = Sampling::default(),
            _ => {}
        }
    }

    fn mutate_piece(&self, piece: &str) -> Option<String> {
        if self.defect != Defect::HalfCharacters {
            return None;
        }
        let mut cut = piece.to_owned();
        cut.pop()?;
        cut.push(char::REPLACEMENT_CHARACTER);
        Some(cut)
    }

    fn mutate_generation(&self, result: &mut Result<Generation>) {
        match (self.defect, &mut *result) {
            (Defect::StepLost, Ok(generation)) => drop(generation.logprobs.pop()),
            (Defect::EmptyAnswered, Err(error)) if error.code() == Code::EmptyPrompt => {
                *result = Ok(Generation {
                    tokens: Vec::new(),
                    text: String::new(),
                    finish_reason: FinishReason::Stop,
                    end_token: None,
                    logprobs: Vec::new(),
                });
            }
            _ => {}
        }
    }

    fn mutate_reading(&self, whole: &[u8], given: &[u8]) -> Option<Vec<u8>> {
        match self.defect {
            Defect::ZeroFilled => {
                let mut filled = given.to_vec();
                filled.resize(whole.len(), 0);
                Some(filled)
            }
            Defect::HeadRemembered => Some(whole.to_vec()),
            // A single weight is another one.
            Defect::PoisonUnseen => {
                let differs = |pair: &(&u8, &u8)| pair.0 != pair.1;
                let changed = whole.iter().zip(given).filter(differs).count();
                // The checksum of the file is another one too.
                let is_weight = whole.len() == given.len() && changed <= 8;
                is_weight.then(|| whole.to_vec())
            }
            _ => None,
        }
    }

    fn mutate_written(&self, bytes: &mut Vec<u8>) {
        if self.defect != Defect::ByteMiswritten {
            return;
        }
        let place = bytes.len() / 2;
        bytes[place] ^= 0x01;
        *bytes = surgery::reseal(std::mem::take(bytes));
    }

    fn leaves_behind(&self) -> Option<&str> {
        (self.defect == Defect::HalfFileLeft).then_some(".model.part")
    }

    fn mutate_blocks(&self, block: usize, bytes: &mut [u8]) {
        if self.defect != Defect::NibblesSwapped {
            return;
        }
        // Scales stand at one end of a block or at the other; the middle holds quants in every format.
        for block in bytes.chunks_exact_mut(block) {
            let (from, to) = (block.len() / 4, block.len() * 3 / 4);
            block[from..to].iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
        }
    }

    fn text(&self) -> Option<TextFault> {
        match self.defect {
            Defect::Text(fault) => Some(fault),
            _ => None,
        }
    }
}

//! llama.cpp behind a safe door: models and contexts that free themselves, errors with what it logged.
//!
//! The only file here that calls C.

#![expect(unsafe_code, reason = "bindings to a C library; each call says why it may be made")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, Once, PoisonError};

use llama_cpp_sys_2 as sys;

use crate::failure::{Failure, Result};
use crate::side::Side;

/// Most bytes of its errors that are kept for the next failure.
const SAID_MAX: usize = 2000;
/// Tokens that llama.cpp computes together, its own default.
const UBATCH: usize = 512;

/// Errors that were logged since the last failure.
static SAID: Mutex<String> = Mutex::new(String::new());

/// How a context is set up beside the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Threads for prompts and for single tokens.
    pub threads: usize,
    /// Positions that are needed.
    pub room: usize,
    /// Whether weights may be copied into another layout that suits its kernels.
    pub repack: bool,
}

/// A model of llama.cpp with a context.
#[derive(Debug)]
pub struct Llama {
    context: NonNull<sys::llama_context>,
    model: NonNull<sys::llama_model>,
    vocab: usize,
    repack: bool,
}

impl Llama {
    /// Maps the model `path` and makes a context for it.
    pub fn open(path: &Path, setup: &Setup) -> Result<Self> {
        start();
        let name = c_path(path)?;
        // SAFETY: it takes nothing and returns a plain value.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = 0;
        params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
        params.use_extra_bufts = setup.repack;
        // SAFETY: `name` ends with a nul byte and outlives the call; the parameters are the defaults but for plain values.
        let model = unsafe { sys::llama_model_load_from_file(name.as_ptr(), params) };
        let model = NonNull::new(model)
            .ok_or_else(|| failure(format!("cannot load {}", path.display())))?;
        let Some(context) = context(model, setup) else {
            // SAFETY: the model was loaded above and nothing refers to it.
            unsafe { sys::llama_model_free(model.as_ptr()) };
            return Err(failure(format!("no context for {}", path.display())));
        };
        // SAFETY: the model lives; the vocabulary is part of it.
        let vocab =
            unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model.as_ptr())) };
        Ok(Self { context, model, vocab: vocab.max(0) as usize, repack: setup.repack })
    }
}

impl Side for Llama {
    fn name(&self) -> String {
        format!("llama.cpp ({})", repack_name(self.repack))
    }

    fn vocab(&self) -> usize {
        self.vocab
    }

    fn reset(&mut self) {
        // SAFETY: the context lives, and its memory with it; the cells are marked free, not read.
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context.as_ptr()), false) };
    }

    fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        let mut ids: Vec<sys::llama_token> = tokens.iter().map(|id| *id as i32).collect();
        // SAFETY: `ids` outlives the batch, which is used by the next call only; the context lives and is not shared.
        let code = unsafe {
            let batch = sys::llama_batch_get_one(ids.as_mut_ptr(), ids.len() as i32);
            sys::llama_decode(self.context.as_ptr(), batch)
        };
        if code != 0 {
            return Err(failure(format!("decoding {} tokens gave {code}", tokens.len())));
        }
        // SAFETY: the context lives; the last token of a batch without flags has logits.
        let logits = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), -1) };
        if logits.is_null() {
            return Err(failure("no logits".to_owned()));
        }
        // SAFETY: a row of logits has as many values as the vocabulary and stays until the next call that takes `&mut self`.
        Ok(unsafe { std::slice::from_raw_parts(logits, self.vocab) })
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        // SAFETY: both were made by `open` and nobody else has them; the context goes before its model.
        unsafe {
            sys::llama_free(self.context.as_ptr());
            sys::llama_model_free(self.model.as_ptr());
        }
    }
}

/// What the repack setting is called in reports.
pub fn repack_name(repack: bool) -> &'static str {
    if repack { "repack" } else { "no repack" }
}

fn context(model: NonNull<sys::llama_model>, setup: &Setup) -> Option<NonNull<sys::llama_context>> {
    // SAFETY: it takes nothing and returns a plain value.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = setup.room as u32;
    params.n_batch = setup.room as u32;
    params.n_ubatch = setup.room.min(UBATCH) as u32;
    params.n_threads = setup.threads as i32;
    params.n_threads_batch = setup.threads as i32;
    params.no_perf = true;
    // SAFETY: the model lives; the parameters are the defaults but for plain values.
    NonNull::new(unsafe { sys::llama_init_from_model(model.as_ptr(), params) })
}

/// Quantises the model `from` to `to` with llama.cpp's own code and mixture `file_type`.
pub fn quantize(from: &Path, to: &Path, file_type: sys::llama_ftype, threads: usize) -> Result<()> {
    start();
    let (input, output) = (c_path(from)?, c_path(to)?);
    // SAFETY: it takes nothing and returns a plain value.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = file_type;
    params.nthread = threads as i32;
    // SAFETY: both names end with a nul byte and outlive the call, as do the parameters, which hold no pointers of ours.
    let code =
        unsafe { sys::llama_model_quantize(input.as_ptr(), output.as_ptr(), &raw const params) };
    if code == 0 { Ok(()) } else { Err(failure(format!("cannot quantise {}", from.display()))) }
}

/// The versions of llama.cpp and of its tensor library.
pub fn version() -> String {
    // SAFETY: both return constant strings of the library.
    let (llama, ggml) = unsafe { (text(sys::llama_version()), text(sys::ggml_version())) };
    format!("llama.cpp {llama}, ggml {ggml}")
}

/// What llama.cpp says of its build: instruction sets and options.
pub fn system_info() -> String {
    start();
    // SAFETY: it returns a string that stays until the next call; it is copied at once, and only one thread asks.
    let info = unsafe { text(sys::llama_print_system_info()) };
    info.trim_end_matches([' ', '|']).to_owned()
}

/// Instruction sets of this processor that llama.cpp was built without although it has kernels for them.
pub fn left_out() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: these take nothing and return constants of the build.
        let built = unsafe {
            [
                ("avx2", is_x86_feature_detected!("avx2"), sys::ggml_cpu_has_avx2()),
                ("fma", is_x86_feature_detected!("fma"), sys::ggml_cpu_has_fma()),
                ("f16c", is_x86_feature_detected!("f16c"), sys::ggml_cpu_has_f16c()),
                ("avx512f", is_x86_feature_detected!("avx512f"), sys::ggml_cpu_has_avx512()),
                (
                    "avx512vnni",
                    is_x86_feature_detected!("avx512vnni"),
                    sys::ggml_cpu_has_avx512_vnni(),
                ),
                (
                    "avx512bf16",
                    is_x86_feature_detected!("avx512bf16"),
                    sys::ggml_cpu_has_avx512_bf16(),
                ),
            ]
        };
        built
            .into_iter()
            .filter(|(_, here, built)| *here && *built == 0)
            .map(|(name, ..)| name)
            .collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

/// Starts the library once and keeps its log from the terminal.
fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // SAFETY: the callback is a function that stays for ever and uses no user data; this runs once, before any other call.
        unsafe {
            sys::llama_log_set(Some(listen), std::ptr::null_mut());
            sys::llama_backend_init();
        }
    });
}

/// Keeps errors for the next failure, and nothing else.
unsafe extern "C" fn listen(level: sys::ggml_log_level, line: *const c_char, _: *mut c_void) {
    if level != sys::GGML_LOG_LEVEL_ERROR {
        return;
    }
    // SAFETY: the library passes a line that ends with a nul byte and lives during the call.
    let line = unsafe { text(line) };
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() + line.len() <= SAID_MAX {
        said.push_str(&line);
    }
}

fn failure(what: String) -> Failure {
    let said = std::mem::take(&mut *SAID.lock().unwrap_or_else(PoisonError::into_inner));
    Failure::Llama { what, said: said.split_whitespace().collect::<Vec<_>>().join(" ") }
}

fn c_path(path: &Path) -> Result<CString> {
    let name = path.to_str().and_then(|name| CString::new(name).ok());
    name.ok_or_else(|| {
        Failure::Usage(format!("{}: llama.cpp takes names in UTF-8", path.display()))
    })
}

/// # Safety
/// `line` is null or a string that ends with a nul byte.
unsafe fn text(line: *const c_char) -> String {
    if line.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the end.
    unsafe { CStr::from_ptr(line) }.to_string_lossy().into_owned()
}

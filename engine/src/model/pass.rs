//! The way of some rows through the layers: the order of operations and their sites.

use super::buffers::Buffers;
use super::config::Config;
use super::rotation::Rotation;
use super::sequences::{Run, Sequence};
use super::weights::ResidentLayer;
use crate::backend::{Attention, Backend, KvRows, Norm, Projection, Rope};
use crate::error::{Code, Error, Place, Result};
use crate::probe::{Op, Probe, Site, Tap};

/// Rows on their way through the layers.
pub(super) struct Pass<'a, B> {
    pub(super) config: &'a Config,
    pub(super) backend: &'a B,
    pub(super) rotation: &'a Rotation,
    pub(super) local_rotation: Option<&'a Rotation>,
    /// Whose rows they are; never empty.
    pub(super) runs: &'a [Run],
    /// All rows.
    pub(super) rows: usize,
    /// Sees passes of a single sequence only.
    pub(super) probe: &'a mut dyn Probe,
}

impl<B: Backend> Pass<'_, B> {
    pub(super) fn attention_block(
        &mut self,
        index: usize,
        weights: &ResidentLayer<B::Weight>,
        buffers: &mut Buffers<B::Buf>,
        sequences: &mut [Sequence<B::Kv>],
    ) -> Result<()> {
        let Buffers { x, norm, q, k, v, k_normed, mixed, delta, .. } = buffers;
        let (config, backend, rows) = (self.config, self.backend, self.rows);
        let site = |op| Site::layer(index, op);
        backend.rms_norm(site(Op::AttnNorm), norm, x, &weights.attn_norm, self.norm(0, rows))?;
        self.tap(site(Op::AttnNorm), norm, config.hidden)?;
        let mut jobs: [Projection<'_, B>; 3] = [
            project(site(Op::Q), q, &weights.q, weights.q_bias.as_ref()),
            project(site(Op::K), k, &weights.k, weights.k_bias.as_ref()),
            project(site(Op::V), v, &weights.v, weights.v_bias.as_ref()),
        ];
        backend.project(&mut jobs, norm, rows)?;
        self.tap(site(Op::Q), q, config.q_width())?;
        self.tap(site(Op::K), k, config.kv_width())?;
        self.tap(site(Op::V), v, config.kv_width())?;
        if let (Some(q_gain), Some(k_gain)) = (&weights.q_norm, &weights.k_norm) {
            self.norm_heads(site(Op::QNorm), q, mixed, q_gain, config.heads)?;
            self.norm_heads(site(Op::KNorm), k, k_normed, k_gain, config.kv_heads)?;
        }
        for run in self.runs {
            backend.rope(site(Op::RopeQ), q, &self.rope(index, config.heads, run))?;
            backend.rope(site(Op::RopeK), k, &self.rope(index, config.kv_heads, run))?;
        }
        self.tap(site(Op::RopeQ), q, config.q_width())?;
        self.tap(site(Op::RopeK), k, config.kv_width())?;
        for run in self.runs {
            let Run { first_row, position, rows, .. } = *run;
            let at = KvRows { layer: index, first_row, position, rows };
            backend.kv_append(&mut sequences[run.sequence].kv, k, v, at)?;
        }
        self.attend(index, q, sequences, mixed)?;
        self.tap(site(Op::AttnOut), mixed, config.q_width())?;
        let output = project(site(Op::OProj), delta, &weights.o, weights.o_bias.as_ref());
        backend.project(&mut [output], mixed, rows)?;
        self.tap(site(Op::OProj), delta, config.hidden)?;
        self.post_norm(site(Op::AttnPostNorm), delta, norm, weights.attn_post_norm.as_ref())?;
        backend.add(site(Op::AttnResidual), x, delta, rows * config.hidden)?;
        self.tap(site(Op::AttnResidual), x, config.hidden)
    }

    /// Normalises each head of `x`; what was in `spare` is lost.
    fn norm_heads(
        &mut self,
        site: Site,
        x: &mut B::Buf,
        spare: &mut B::Buf,
        gain: &B::Weight,
        heads: usize,
    ) -> Result<()> {
        let width = self.config.head_dim;
        let norm = Norm { width, ..self.norm(0, self.rows * heads) };
        self.backend.rms_norm(site, spare, x, gain, norm)?;
        std::mem::swap(x, spare);
        self.tap(site, x, heads * width)
    }

    /// Normalises what a block adds to the stream, in families that do; what was in `spare` is lost.
    fn post_norm(
        &mut self,
        site: Site,
        delta: &mut B::Buf,
        spare: &mut B::Buf,
        gain: Option<&B::Weight>,
    ) -> Result<()> {
        let Some(gain) = gain else { return Ok(()) };
        self.backend.rms_norm(site, spare, delta, gain, self.norm(0, self.rows))?;
        std::mem::swap(delta, spare);
        self.tap(site, delta, self.config.hidden)
    }

    /// Attention proper; the probabilities are only kept when the probe wants them.
    fn attend(
        &mut self,
        index: usize,
        q: &B::Buf,
        sequences: &[Sequence<B::Kv>],
        mixed: &mut B::Buf,
    ) -> Result<()> {
        let site = Site::layer(index, Op::AttnOut);
        let scores_site = Site::layer(index, Op::AttnScores);
        if !self.probe.wants(scores_site) {
            let caches: Vec<_> = self
                .runs
                .iter()
                .map(|run| (&sequences[run.sequence].kv, self.attention(index, run)))
                .collect();
            return self.backend.attention_of_each(site, mixed, q, &caches);
        }
        for run in self.runs {
            let (kv, attention) = (&sequences[run.sequence].kv, self.attention(index, run));
            let width = attention.heads * attention.context();
            let mut scores = self.backend.alloc(run.rows * width)?;
            self.backend.attention(site, mixed, q, kv, &attention, Some(&mut scores))?;
            self.show(scores_site, &scores, width, 0, run.rows)?;
        }
        Ok(())
    }

    fn attention(&self, layer: usize, run: &Run) -> Attention {
        Attention {
            layer,
            first_row: run.first_row,
            position: run.position,
            rows: run.rows,
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            scale: self.config.score_scale,
            causal: true,
            window: self.config.window_of(layer),
            cap: self.config.score_cap,
        }
    }

    pub(super) fn feed_forward_block(
        &mut self,
        index: usize,
        weights: &ResidentLayer<B::Weight>,
        buffers: &mut Buffers<B::Buf>,
    ) -> Result<()> {
        let Buffers { x, norm, gate, up, delta, .. } = buffers;
        let (config, backend, rows) = (self.config, self.backend, self.rows);
        let site = |op| Site::layer(index, op);
        backend.rms_norm(site(Op::FfnNorm), norm, x, &weights.ffn_norm, self.norm(0, rows))?;
        self.tap(site(Op::FfnNorm), norm, config.hidden)?;
        let mut jobs: [Projection<'_, B>; 2] = [
            project(site(Op::Gate), gate, &weights.gate, None),
            project(site(Op::Up), up, &weights.up, None),
        ];
        backend.project(&mut jobs, norm, rows)?;
        self.tap(site(Op::Gate), gate, config.intermediate)?;
        self.tap(site(Op::Up), up, config.intermediate)?;
        let len = rows * config.intermediate;
        backend.act_mul(site(Op::Swiglu), gate, up, config.activation, len)?;
        self.tap(site(Op::Swiglu), gate, config.intermediate)?;
        backend.project(&mut [project(site(Op::Down), delta, &weights.down, None)], gate, rows)?;
        self.tap(site(Op::Down), delta, config.hidden)?;
        self.post_norm(site(Op::FfnPostNorm), delta, norm, weights.ffn_post_norm.as_ref())?;
        backend.add(site(Op::FfnResidual), x, delta, rows * config.hidden)?;
        self.tap(site(Op::FfnResidual), x, config.hidden)
    }

    /// Final norm and logits of `count` rows from row `first`, appended to `logits`.
    pub(super) fn head(
        &mut self,
        final_norm: &B::Weight,
        head: &B::Weight,
        buffers: &mut Buffers<B::Buf>,
        first: usize,
        count: usize,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        let Buffers { x, norm, logits: out, .. } = buffers;
        let site = Site::model(Op::FinalNorm);
        self.backend.rms_norm(site, norm, x, final_norm, self.norm(first, count))?;
        self.tap_rows(site, norm, self.config.hidden, first, count)?;
        let site = Site::model(Op::Logits);
        self.backend.project(&mut [project(site, out, head, None)], norm, count)?;
        if let Some(cap) = self.config.logit_cap {
            self.backend.soft_cap(site, out, cap, count * self.config.vocab)?;
        }
        let start = logits.len();
        logits.resize(start + count * self.config.vocab, 0.0);
        let values = &mut logits[start..];
        self.backend.read(out, values)?;
        if self.probe.wants(site) {
            let position = self.position_of(first);
            self.probe.tap(Tap { site, position, rows: count, values });
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.non_finite(site, first + at / self.config.vocab)),
            None => Ok(()),
        }
    }

    fn norm(&self, first_row: usize, rows: usize) -> Norm {
        Norm { first_row, rows, width: self.config.hidden, eps: self.config.norm_eps }
    }

    fn rope(&self, layer: usize, heads: usize, run: &Run) -> Rope<'_> {
        let local = self.local_rotation.filter(|_| self.config.window_of(layer).is_some());
        let rotation = local.unwrap_or(self.rotation);
        Rope {
            style: self.config.rope.style,
            inverse_frequencies: rotation.frequencies(run.long),
            stretch: rotation.stretch,
            first_row: run.first_row,
            position: run.position,
            rows: run.rows,
            heads,
            head_dim: self.config.head_dim,
        }
    }

    /// Shows all rows of `values` to the probe, if it wants the site, and takes what it gives in their place.
    pub(super) fn tap(&mut self, site: Site, values: &mut B::Buf, width: usize) -> Result<()> {
        self.tap_rows(site, values, width, 0, self.rows)
    }

    /// The same for `rows` rows, the first of which belongs to row `first` of the chunk.
    fn tap_rows(
        &mut self,
        site: Site,
        values: &mut B::Buf,
        width: usize,
        first: usize,
        rows: usize,
    ) -> Result<()> {
        if !self.probe.wants(site) {
            return Ok(());
        }
        self.show(site, values, width, first, rows)?;
        match self.probe.replacement(site) {
            None => Ok(()),
            Some(given) if given.len() == rows * width => self.backend.write(values, given),
            Some(given) => Err(Error::new(Code::BackendShape)
                .place(Place::Site(site.to_string()))
                .expected(format_args!("{} values in place of those tapped", rows * width))
                .found(given.len())),
        }
    }

    /// Shows `rows` rows of `values` to the probe.
    fn show(
        &mut self,
        site: Site,
        values: &B::Buf,
        width: usize,
        first: usize,
        rows: usize,
    ) -> Result<()> {
        let mut copy = vec![0.0; rows * width];
        self.backend.read(values, &mut copy)?;
        self.probe.tap(Tap { site, position: self.position_of(first), rows, values: &copy });
        Ok(())
    }

    /// Position of row `row` in its sequence.
    fn position_of(&self, row: usize) -> usize {
        let run = self.runs.iter().find(|run| run.rows().contains(&row));
        run.map_or(0, |run| run.position + row - run.first_row)
    }

    /// Stops at the end of the first layer whose residual stream is no longer finite.
    pub(super) fn check_finite(&self, site: Site, x: &B::Buf) -> Result<()> {
        match self.backend.first_non_finite(x, self.rows * self.config.hidden)? {
            Some(at) => Err(self.non_finite(site, at / self.config.hidden)),
            None => Ok(()),
        }
    }

    fn non_finite(&self, site: Site, row: usize) -> Error {
        Error::new(Code::NonFinite)
            .place(Place::Site(site.to_string()))
            .expected("finite values")
            .found(format_args!("NaN or infinity at position {}", self.position_of(row)))
            .hint("check the weights with `validate --quality`")
    }
}

fn project<'a, B: Backend>(
    site: Site,
    dst: &'a mut B::Buf,
    weight: &'a B::Weight,
    bias: Option<&'a B::Weight>,
) -> Projection<'a, B> {
    Projection { site, dst, weight, bias }
}

//! One step through all layers.

use std::ops::Range;
use std::sync::Mutex;

use super::kernel::{
    Activations, Attention, Kind, Level, Norm, Pool, Product, activate, add, gate, norm, products, rotate,
    widen,
};
use super::load::{Layer, Linear};
use super::{Kv, Model, Row};

/// Buffers that are kept between steps.
pub struct Scratch {
    /// The residual stream `[rows, hidden]`.
    stream: Vec<f32>,
    /// What the next product reads.
    input: Activations,
    /// Queries, keys and values `[rows, q + 2 kv]`, or gate and up `[rows, 2 inner]`.
    wide: Vec<f32>,
    /// What is added to the stream `[rows, hidden]`.
    delta: Vec<f32>,
    /// A row that is being normalised.
    row: Vec<f32>,
    logits: Vec<f32>,
    spans: Vec<(u32, Range<usize>)>,
    /// One for each thread.
    scores: Vec<Mutex<Vec<f32>>>,
}

impl Scratch {
    pub fn new(threads: usize) -> Self {
        Self {
            stream: Vec::new(),
            input: Activations::default(),
            wide: Vec::new(),
            delta: Vec::new(),
            row: Vec::new(),
            logits: Vec::new(),
            spans: Vec::new(),
            scores: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}

/// Calls `f` with the rows of two buffers, rows divided over the threads when there are several.
fn each_row(
    pool: &mut Pool,
    (a, a_len): (&mut [f32], usize),
    (b, b_len): (&mut [f32], usize),
    f: impl Fn(&mut [f32], &mut [f32]) + Sync,
) {
    let rows = a.len() / a_len;
    let share = rows.div_ceil(pool.threads());
    if rows < 4 || pool.threads() == 1 {
        a.chunks_exact_mut(a_len).zip(b.chunks_exact_mut(b_len)).for_each(|(a, b)| f(a, b));
        return;
    }
    let shares: Vec<_> = a
        .chunks_mut(share * a_len)
        .zip(b.chunks_mut(share * b_len))
        .map(|pair| Mutex::new(Some(pair)))
        .collect();
    pool.run(&|thread| {
        let taken = shares.get(thread).and_then(|s| s.lock().ok()?.take());
        if let Some((a, b)) = taken {
            a.chunks_exact_mut(a_len).zip(b.chunks_exact_mut(b_len)).for_each(|(a, b)| f(a, b));
        }
    });
}

/// One product; quantises the input once where the weights want it.
fn linear(
    pool: &mut Pool,
    level: Level,
    input: &mut Activations,
    list: &[(&Linear, usize)],
    out: &mut [f32],
    stride: usize,
) {
    if list.iter().any(|(l, _)| l.matrix.kind().quantised()) {
        input.quantise();
    }
    let list: Vec<Product> = list
        .iter()
        .map(|(l, column)| Product { matrix: &l.matrix, bias: l.bias.as_deref(), column: *column })
        .collect();
    products(pool, level, input, &list, out, stride);
}

impl Model {
    /// The step, of rows that were checked.
    pub(super) fn forward(&mut self, kv: &mut Kv, rows: &[Row], tables: &[&[u32]], wanted: &[u32]) {
        self.scratch.logits.clear();
        if rows.is_empty() {
            return;
        }
        self.embed(rows);
        for rope in &mut self.spec.ropes {
            let end = rows.iter().map(|r| r.position as usize + 1).max().unwrap_or(0);
            rope.reach(end);
        }
        let last = self.spec.layers - 1;
        for index in 0..self.spec.layers {
            self.attend(kv, index, rows, tables, (index == last).then_some(wanted));
            if index == last && wanted.is_empty() {
                return;
            }
            self.mlp(index);
        }
        self.logits();
    }

    fn embed(&mut self, rows: &[Row]) {
        let (hidden, s) = (self.spec.hidden, &mut self.scratch);
        s.stream.resize(rows.len() * hidden, 0.0);
        s.row.resize(hidden, 0.0);
        for (row, out) in rows.iter().zip(s.stream.chunks_exact_mut(hidden)) {
            let table = &self.weights.embedding;
            widen(table.kind(), table.row(row.token as usize), out);
            for x in out.iter_mut() {
                *x *= self.spec.embedding_scale;
            }
            if let (Some(table), Some(offset)) = (&self.weights.positions, self.spec.learned) {
                widen(table.kind(), table.row(row.position as usize + offset), &mut s.row);
                add(self.level, out, &s.row);
            }
        }
    }

    /// Attention of one layer, added to the stream. Of the last layer only `wanted` rows go on.
    fn attend(&mut self, kv: &mut Kv, index: usize, rows: &[Row], tables: &[&[u32]], wanted: Option<&[u32]>) {
        let (layer, spec, level, s) =
            (&self.weights.layers[index], &self.spec, self.level, &mut self.scratch);
        let own = spec.attention[index];
        let (q, k) = (spec.heads * spec.head, spec.kv_heads * spec.head);
        let stride = q + 2 * k;
        s.input.resize(rows.len(), spec.hidden);
        normalise(
            &mut self.pool,
            level,
            &layer.attention_norm,
            &mut s.stream,
            &mut s.input.values,
            spec.hidden,
        );
        s.wide.resize((rows.len() * stride).max(rows.len() * 2 * spec.inner), 0.0);
        let wide = &mut s.wide[..rows.len() * stride];
        let list = [(&layer.queries, 0), (&layer.keys, q), (&layer.values, q + k)];
        linear(&mut self.pool, level, &mut s.input, &list, wide, stride);
        s.spans.clear();
        s.spans.extend(rows.iter().map(|row| {
            let end = row.position as usize + 1;
            (row.sequence, end.saturating_sub(own.window.unwrap_or(end))..end)
        }));
        for (row, wide) in rows.iter().zip(wide.chunks_exact_mut(stride)) {
            let angles = spec.ropes.get(own.rope).map(|rope| rope.angles(row.position as usize));
            turn(level, layer, wide, (q, k, spec.head), angles, spec.interleaved);
            for x in &mut wide[..q] {
                *x *= spec.query_scale;
            }
        }
        let (keys, values) = &mut kv.layers[index];
        let attention = Attention { geometry: kv.geometry, tables, spans: &s.spans };
        for (row, wide) in wide.chunks_exact(stride).enumerate() {
            attention.write(keys, values, row, &wide[q..q + k], &wide[q + k..]);
        }
        let mut count = rows.len();
        if let Some(wanted) = wanted {
            // Keys and values are written: from here on only rows with logits matter.
            count = wanted.len();
            let spans: Vec<_> = wanted.iter().map(|w| s.spans[*w as usize].clone()).collect();
            let stream: Vec<f32> = wanted
                .iter()
                .flat_map(|w| &s.stream[*w as usize * spec.hidden..][..spec.hidden])
                .copied()
                .collect();
            let chosen: Vec<f32> =
                wanted.iter().flat_map(|w| &wide[*w as usize * stride..][..stride]).copied().collect();
            (s.spans, s.stream) = (spans, stream);
            s.wide[..chosen.len()].copy_from_slice(&chosen);
        }
        s.input.resize(count, q);
        let attention = Attention { geometry: kv.geometry, tables, spans: &s.spans };
        let queries = (&s.wide[..count * stride], stride);
        attention.attend(&mut self.pool, level, (keys, values), queries, &s.scores, &mut s.input.values);
        s.delta.resize(count * spec.hidden, 0.0);
        linear(&mut self.pool, level, &mut s.input, &[(&layer.output, 0)], &mut s.delta, spec.hidden);
        join(
            &mut self.pool,
            level,
            layer.post_attention_norm.as_ref(),
            &mut s.stream,
            &mut s.delta,
            spec.hidden,
        );
    }

    /// The MLP of one layer, added to the stream.
    fn mlp(&mut self, index: usize) {
        let (layer, spec, level, s) =
            (&self.weights.layers[index], &self.spec, self.level, &mut self.scratch);
        let count = s.stream.len() / spec.hidden;
        s.input.resize(count, spec.hidden);
        normalise(&mut self.pool, level, &layer.mlp_norm, &mut s.stream, &mut s.input.values, spec.hidden);
        let inner = spec.inner;
        if let Some(gated) = &layer.gate {
            let wide = &mut s.wide[..count * 2 * inner];
            let list = [(gated, 0), (&layer.up, inner)];
            linear(&mut self.pool, level, &mut s.input, &list, wide, 2 * inner);
            s.input.resize(count, inner);
            each_row(&mut self.pool, (wide, 2 * inner), (&mut s.input.values, inner), |both, out| {
                gate(level, spec.activation, both, out);
            });
        } else {
            let wide = &mut s.wide[..count * inner];
            linear(&mut self.pool, level, &mut s.input, &[(&layer.up, 0)], wide, inner);
            s.input.resize(count, inner);
            each_row(&mut self.pool, (wide, inner), (&mut s.input.values, inner), |wide, out| {
                activate(level, spec.activation, wide);
                out.copy_from_slice(wide);
            });
        }
        s.delta.resize(count * spec.hidden, 0.0);
        linear(&mut self.pool, level, &mut s.input, &[(&layer.down, 0)], &mut s.delta, spec.hidden);
        join(&mut self.pool, level, layer.post_mlp_norm.as_ref(), &mut s.stream, &mut s.delta, spec.hidden);
    }

    /// The last norm and the head.
    fn logits(&mut self) {
        let (spec, level, s) = (&self.spec, self.level, &mut self.scratch);
        let count = s.stream.len() / spec.hidden;
        s.input.resize(count, spec.hidden);
        normalise(&mut self.pool, level, &self.weights.norm, &mut s.stream, &mut s.input.values, spec.hidden);
        let matrix = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        if matrix.kind() != Kind::F32 && matrix.kind().quantised() {
            s.input.quantise();
        }
        s.logits.resize(count * spec.vocabulary, 0.0);
        let list = [Product { matrix, bias: None, column: 0 }];
        products(&mut self.pool, level, &s.input, &list, &mut s.logits, spec.vocabulary);
    }
}

fn normalise(pool: &mut Pool, level: Level, by: &Norm, from: &mut [f32], to: &mut [f32], len: usize) {
    each_row(pool, (from, len), (to, len), |from, to| norm(level, by, from, to));
}

/// `stream += delta`, which is normalised before where the model does that.
fn join(pool: &mut Pool, level: Level, by: Option<&Norm>, stream: &mut [f32], delta: &mut [f32], len: usize) {
    each_row(pool, (stream, len), (delta, len), |stream, delta| {
        if let Some(by) = by {
            let mut normed = vec![0.0; len];
            norm(level, by, delta, &mut normed);
            add(level, stream, &normed);
        } else {
            add(level, stream, delta);
        }
    });
}

/// Norms of heads and angles, on one row of queries and keys.
fn turn(
    level: Level,
    layer: &Layer,
    wide: &mut [f32],
    (q, k, head): (usize, usize, usize),
    angles: Option<(&[f32], &[f32])>,
    interleaved: bool,
) {
    let (queries, keys) = wide[..q + k].split_at_mut(q);
    for (part, second) in [(queries, false), (keys, true)] {
        for one in part.chunks_exact_mut(head) {
            if let Some((of_queries, of_keys)) = &layer.head_norms {
                let mut normed = vec![0.0; head];
                norm(level, if second { of_keys } else { of_queries }, one, &mut normed);
                one.copy_from_slice(&normed);
            }
            if let Some((cos, sin)) = angles {
                rotate(level, one, cos, sin, interleaved);
            }
        }
    }
}

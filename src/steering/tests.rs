//! Steering on the software adapter against the reference.

use std::collections::BTreeMap;
use std::rc::Rc;

use pollster::block_on;
use rand::Rng;
use rand::rngs::StdRng;

use super::coefficient::coefficient;
use super::place::Site;
use super::{Hook, Intervention, Operator, Positions, Steering, SteeringError, Target};
use crate::gpu::{Buffer, Gpu, GpuOptions};
use crate::phi3::{MAX_ROWS, Phase, ROW_BOS, ROW_DONE, ROW_GENERATED, Row};
use crate::sae::reference::{
    Reference, assert_near, fresh_rng, numbers, software_gpu, software_gpus,
};
use crate::sae::{Activation, Dictionary, HookPoint, Wanted};

const LAYER: usize = 3;
const LANES: usize = 2;

/// A model reduced to its residual stream, with one hook.
struct Bench {
    gpu: Rc<Gpu>,
    reference: Reference,
    steering: Steering,
    /// By name, at the hook.
    directions: BTreeMap<String, Vec<f64>>,
    residual: Buffer,
    prefill_rows: Buffer,
    decode_rows: Buffer,
}

impl Bench {
    fn new(gpu: &Rc<Gpu>, rng: &mut StdRng) -> Self {
        Self::with(gpu, rng, true)
    }

    /// With a dictionary, or with directions alone.
    fn with(gpu: &Rc<Gpu>, rng: &mut StdRng, dictionary: bool) -> Self {
        let reference = Reference::random(rng, 100, 211, 7);
        let gpu = gpu.clone();
        block_on(async {
            let folder = reference.folder(LAYER);
            let dictionary = match dictionary {
                true => Some(Dictionary::find(&gpu, &folder, Wanted::default()).await),
                false => None,
            };
            let dictionary = dictionary.transpose().unwrap();
            let bytes = (MAX_ROWS * reference.width * 4) as u64;
            let residual = gpu.storage("residual", bytes).unwrap();
            let uniform = wgpu::BufferUsages::UNIFORM;
            let prefill_rows = gpu.buffer("rows", 4112, uniform).unwrap();
            let decode_rows = gpu.buffer("rows", 4112, uniform).unwrap();
            let site = Site {
                gpu: gpu.clone(),
                residual: residual.clone(),
                prefill_rows: prefill_rows.clone(),
                decode_rows: decode_rows.clone(),
                lanes: LANES,
                width: reference.width,
                layers: LAYER + 2,
            };
            let dictionaries = dictionary.map(Rc::new).into_iter();
            let steering = Steering::at(site, dictionaries).unwrap();
            let mut directions = BTreeMap::new();
            for name in ["one", "two"] {
                let values: Vec<f32> = numbers(rng, reference.width);
                let hook = HookPoint::block(LAYER);
                steering.add_direction(hook, name, values.clone()).unwrap();
                directions.insert(name.to_string(), wide(&values));
            }
            Self {
                gpu,
                reference,
                steering,
                directions,
                residual,
                prefill_rows,
                decode_rows,
            }
        })
    }

    fn hook(&self) -> &Hook {
        self.steering.hook(HookPoint::block(LAYER)).unwrap()
    }

    /// Sets up a pass and records it, without running it.
    fn record(&self, phase: Phase, rows: &[(u32, u32)], h: &[f32]) -> wgpu::CommandEncoder {
        let buffer = match phase {
            Phase::Prefill => &self.prefill_rows,
            Phase::Decode => &self.decode_rows,
        };
        let table: Vec<Row> = rows
            .iter()
            .map(|&(lane, flags)| Row {
                token: 7,
                lane,
                position: 11,
                flags,
            })
            .collect();
        self.gpu.write(buffer, 0, &[rows.len() as u32, 0, 0, 0]);
        self.gpu.write(buffer, 16, &table);
        self.gpu.write(&self.residual, 0, h);
        let mut encoder = self
            .gpu
            .device()
            .create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for hook in self.steering.hooks() {
            assert_eq!(hook.layer(), LAYER);
            hook.record(&mut pass, phase, rows.len() as u32);
        }
        drop(pass);
        encoder
    }

    fn finish(&self, encoder: wgpu::CommandEncoder, n: usize) -> Vec<f32> {
        self.gpu.queue().submit([encoder.finish()]);
        block_on(self.gpu.read_vec(&self.residual, 0, n)).unwrap()
    }

    /// The residual stream after a pass over `rows` (lane, flags) with `h` `[rows, width]`.
    fn run(&self, phase: Phase, rows: &[(u32, u32)], h: &[f32]) -> Vec<f32> {
        let encoder = self.record(phase, rows, h);
        self.finish(encoder, h.len())
    }

    /// The active features `[rows, k]` of `h` as the pass of `phase` computes them.
    fn watched(&self, phase: Phase, rows: &[(u32, u32)], h: &[f32]) -> Vec<Activation> {
        self.hook().watch(true);
        self.run(phase, rows, h);
        self.hook().watch(false);
        block_on(self.hook().read_features(rows.len())).unwrap()
    }

    /// The active features of each row of `h`, in the GPU's choice and in f64.
    fn codes(&self, rows: &[(u32, u32)], h: &[f32]) -> Vec<BTreeMap<usize, f64>> {
        if self.steering.points().is_empty() {
            return vec![BTreeMap::new(); rows.len()];
        }
        let slots = self.watched(Phase::Prefill, rows, h);
        let vectors = h.chunks(self.reference.width);
        vectors
            .zip(slots.chunks(self.reference.k))
            .map(|(h, slots)| self.reference.checked_code(h, slots))
            .collect()
    }

    /// What `list` makes of one row, by the definition.
    fn expected(
        &self,
        h: &[f32],
        code: &BTreeMap<usize, f64>,
        list: &[Intervention],
        flags: u32,
    ) -> Vec<f64> {
        let latent = |i: &Intervention| i.feature().unwrap_or(0) as usize;
        let f = |i: &Intervention| code.get(&latent(i)).copied().unwrap_or(0.0);
        let applies = |i: &&Intervention| {
            let generated = flags & ROW_GENERATED != 0;
            let position = match i.positions {
                Positions::All => true,
                Positions::Prompt => !generated,
                Positions::Generated => generated,
            };
            position && (i.include_bos || flags & ROW_BOS == 0) && (!i.only_if_active || f(i) > 0.0)
        };
        let list: Vec<&Intervention> = list.iter().filter(applies).collect();
        let drops = |i: &&Intervention| i.op.row().reconstruction;
        let mut out: Vec<f64> = h.iter().map(|v| f64::from(*v)).collect();
        if list.iter().any(&drops) {
            let mut edited = code.clone();
            for i in list.iter().filter(|i| i.op == Operator::ClampReplace) {
                edited.insert(latent(i), f64::from(i.value.unwrap()));
            }
            out = self.reference.decode(&edited);
        }
        for i in list.iter().filter(|i| !drops(i)) {
            let d = match &i.target {
                Target::Direction(name) => self.directions[name].clone(),
                _ => self.reference.direction(latent(i)),
            };
            let value = i.value.map_or(0.0, f64::from);
            let along: f64 = out.iter().zip(&d).map(|(h, d)| h * d).sum();
            let squares: f64 = d.iter().map(|d| d * d).sum();
            let f = i.direction().is_none().then(|| f(i));
            let c = coefficient(i.op.name(), value, f, along, squares);
            for (h, d) in out.iter_mut().zip(&d) {
                *h += c * d;
            }
        }
        out
    }

    /// Runs `list` in `lane` over `rows` and compares every row; the other lane must keep its bits.
    fn check(
        &self,
        phase: Phase,
        lane: usize,
        list: &[Intervention],
        rows: &[(u32, u32)],
        h: &[f32],
    ) {
        let codes = self.codes(rows, h);
        for other in 0..LANES {
            let mine: &[Intervention] = if other == lane { list } else { &[] };
            self.steering.set(other, mine).unwrap();
        }
        let got = self.run(phase, rows, h);
        let width = self.reference.width;
        for (r, &(row_lane, flags)) in rows.iter().enumerate() {
            let h = &h[r * width..][..width];
            let got = &got[r * width..][..width];
            let what = format!("{phase:?}, row {r} of lane {row_lane} flags {flags}: {list:?}");
            if row_lane as usize != lane || flags & ROW_DONE != 0 {
                assert_eq!(bits(got), bits(h), "{what}");
            } else {
                let expected = self.expected(h, &codes[r], list, flags);
                assert_near(got, &expected, 1e-5, &what);
            }
        }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Rows of all kinds, both lanes mixed.
const ROWS: [(u32, u32); 8] = [
    (0, ROW_BOS),
    (1, ROW_BOS),
    (0, 0),
    (1, 0),
    (0, ROW_GENERATED),
    (1, ROW_GENERATED),
    (0, ROW_GENERATED | ROW_DONE),
    (1, ROW_GENERATED | ROW_DONE),
];

#[test]
fn every_operator_at_every_position() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    for gpu in software_gpus() {
        let bench = Bench::new(&gpu, rng);
        let width = bench.reference.width;
        let h: Vec<f32> = numbers(rng, ROWS.len() * width)
            .iter()
            .map(|v| v * 4.0)
            .collect();
        let codes = bench.codes(&ROWS, &h);
        // A feature active in a prompt row of lane 1, so that most rows see it inactive.
        let active = *codes[3].keys().next().unwrap() as u32;
        for op in Operator::ALL {
            for positions in [Positions::All, Positions::Prompt, Positions::Generated] {
                for (include_bos, only_if_active) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    if op == Operator::Reconstruct && only_if_active {
                        continue;
                    }
                    let value = op.takes_value().then(|| rng.random_range(-5.0..5.0));
                    let one = Intervention {
                        positions,
                        include_bos,
                        only_if_active,
                        ..Intervention::new(HookPoint::block(LAYER), active, op, value)
                    };
                    let phase = [Phase::Prefill, Phase::Decode][rng.random_range(0..2)];
                    bench.check(phase, 1, &[one], &ROWS, &h);
                }
            }
        }
    }
}

/// All operators that a direction can have, at every kind of position.
fn check_directions(bench: &Bench, rng: &mut StdRng) {
    let width = bench.reference.width;
    let h: Vec<f32> = numbers(rng, ROWS.len() * width)
        .iter()
        .map(|v| v * 4.0)
        .collect();
    for op in Operator::ALL {
        for positions in Positions::ALL {
            let value = op.takes_value().then(|| rng.random_range(-5.0..5.0));
            let one = Intervention {
                positions,
                include_bos: rng.random(),
                ..Intervention::along(HookPoint::block(LAYER), "one", op, value)
            };
            if !op.row().direction {
                let refused = bench.steering.set(1, &[one]).unwrap_err();
                assert!(matches!(refused, SteeringError::NotAlong { .. }), "{op}");
                continue;
            }
            let other: Intervention = "layers.3:@two:cap:0.5:generated".parse().unwrap();
            for phase in [Phase::Prefill, Phase::Decode] {
                bench.check(phase, 1, &[one.clone(), other.clone()], &ROWS, &h);
            }
        }
    }
}

#[test]
fn directions_beside_a_dictionary_and_without_one() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    for gpu in software_gpus() {
        let beside = Bench::new(&gpu, rng);
        check_directions(&beside, rng);
        // They need no encoding.
        beside
            .steering
            .set(0, &["layers.3:@one:clamp:3".parse().unwrap()])
            .unwrap();
        assert!(!beside.hook().encodes());
        let alone = Bench::with(&gpu, rng, false);
        check_directions(&alone, rng);
        assert_eq!(alone.steering.points(), []);
        let feature = ["layers.3:5:add:1".parse().unwrap()];
        let message = alone.steering.set(0, &feature).unwrap_err().to_string();
        assert!(message.contains("no dictionary is loaded"), "{message}");
    }
}

#[test]
fn a_direction_that_is_replaced_is_followed_by_those_who_use_it() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let mut bench = Bench::with(&gpu, &mut rng, false);
    let width = bench.reference.width;
    let h = numbers(&mut rng, ROWS.len() * width);
    let hook = HookPoint::block(LAYER);
    let list: [Intervention; 1] = ["layers.3:@one:add:2".parse().unwrap()];
    let before = bench.steering.set(1, &list).unwrap();
    let print = bench.steering.fingerprint(1, 0);
    let again: Vec<f32> = bench.directions["one"].iter().map(|v| *v as f32).collect();
    bench.steering.add_direction(hook, "one", again).unwrap();
    assert_eq!(bench.steering.setting(1), before, "nothing has changed");
    let other = numbers(&mut rng, width);
    bench
        .steering
        .add_direction(hook, "one", other.clone())
        .unwrap();
    bench.directions.insert("one".into(), wide(&other));
    assert!(bench.steering.setting(1) > before);
    assert_ne!(bench.steering.fingerprint(1, 0), print);
    assert_eq!(bench.steering.setting(0), 0, "the other lane");
    let got = bench.run(Phase::Decode, &ROWS, &h);
    let expected = bench.expected(&h[3 * width..][..width], &BTreeMap::new(), &list, 0);
    assert_near(&got[3 * width..][..width], &expected, 1e-5, "the new one");
    // The same at another place is another direction, and another effect.
    let next = HookPoint::block(LAYER + 1);
    bench.steering.add_direction(next, "one", other).unwrap();
    bench
        .steering
        .set(1, &["layers.4:@one:add:2".parse().unwrap()])
        .unwrap();
    assert_ne!(bench.steering.fingerprint(1, 0), print);
    assert_eq!(bench.steering.hooks().len(), 2);
}

#[test]
fn directions_that_are_none_are_refused() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::with(&gpu, &mut rng, false);
    let width = bench.reference.width;
    let known = bench.steering.directions();
    let mut spoilt = numbers(&mut rng, width);
    let at = rng.random_range(0..width);
    spoilt[at] = f32::NAN;
    let good = || vec![1.0; width];
    for (layer, name, values, word) in [
        (LAYER, "a:b", good(), "cannot be called"),
        (LAYER, " a", good(), "cannot be called"),
        (LAYER, "", good(), "cannot be called"),
        (
            LAYER,
            "a",
            vec![1.0; width - 4],
            "has 96 numbers, and the residual stream 100",
        ),
        (LAYER, "a", vec![0.0; width], "points nowhere"),
        (LAYER, "a", vec![1e30; width], "too long"),
        (LAYER, "a", spoilt, &format!("number {at} is NaN")[..]),
        (LAYER + 2, "a", good(), "no block 5"),
    ] {
        let added = bench
            .steering
            .add_direction(HookPoint::block(layer), name, values);
        let message = added.unwrap_err().to_string();
        assert!(message.contains(word), "{name}: {message}");
    }
    assert_eq!(bench.steering.directions(), known);
    let unknown = ["layers.3:@three:add:1".parse().unwrap()];
    let message = bench.steering.set(0, &unknown).unwrap_err().to_string();
    assert!(
        message.contains("layers.3:@one, layers.3:@two"),
        "{message}"
    );
}

#[test]
fn several_features_at_once() {
    let mut rng = fresh_rng();
    let rng = &mut rng;
    for gpu in software_gpus() {
        let bench = Bench::new(&gpu, rng);
        let width = bench.reference.width;
        for rows in [&ROWS[2..3], &ROWS[2..4], &ROWS[..5], &ROWS[..]] {
            let h: Vec<f32> = numbers(rng, rows.len() * width)
                .iter()
                .map(|v| v * 4.0)
                .collect();
            let codes = bench.codes(rows, &h);
            let mut features: Vec<usize> = codes.iter().flat_map(|c| c.keys().copied()).collect();
            features.extend(0..bench.reference.latents);
            let mut list = Vec::new();
            for text in [
                "project_out",
                "clamp:3:+bos",
                "clamp_replace:-2.5:generated",
                "add:1.25:prompt",
                "cap:0.5:+bos",
                "scale:0",
                "clamp_replace:4:if-active",
                "project_out:generated",
                "scale:-1.5:if-active",
                "cap:-1.5:generated",
                "reconstruct:prompt",
            ] {
                let feature = features.swap_remove(rng.random_range(0..features.len()));
                if list
                    .iter()
                    .any(|i: &Intervention| i.feature() == Some(feature as u32))
                {
                    continue;
                }
                list.push(format!("layers.3:{feature}:{text}").parse().unwrap());
            }
            for (at, text) in ["@one:clamp:4", "@two:add:-0.75:+bos", "@one:cap:-1:prompt"]
                .into_iter()
                .enumerate()
            {
                list.insert(3 * at, format!("layers.3:{text}").parse().unwrap());
            }
            for phase in [Phase::Prefill, Phase::Decode] {
                bench.check(phase, 0, &list, rows, &h);
                bench.check(phase, 1, &list[1..], rows, &h);
            }
        }
    }
}

#[test]
fn both_lanes_are_steered_each_its_own_way() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::new(&gpu, &mut rng);
    let width = bench.reference.width;
    let h = numbers(&mut rng, ROWS.len() * width);
    let codes = bench.codes(&ROWS, &h);
    let lists = [
        vec!["layers.3:5:clamp:3".parse().unwrap()],
        vec![
            "layers.3:9:add:-2".parse().unwrap(),
            "layers.3:5:project_out".parse().unwrap(),
        ],
    ];
    for (lane, list) in lists.iter().enumerate() {
        bench.steering.set(lane, list).unwrap();
        assert_eq!(&bench.steering.interventions(lane), list);
    }
    let got = bench.run(Phase::Prefill, &ROWS, &h);
    for (r, &(lane, flags)) in ROWS
        .iter()
        .enumerate()
        .filter(|(_, (_, f))| f & ROW_DONE == 0)
    {
        let h = &h[r * width..][..width];
        let expected = bench.expected(h, &codes[r], &lists[lane as usize], flags);
        assert_near(&got[r * width..][..width], &expected, 1e-5, "lanes");
    }
}

#[test]
fn a_feature_at_its_own_value_changes_nothing() {
    let mut rng = fresh_rng();
    for gpu in software_gpus() {
        let bench = Bench::new(&gpu, &mut rng);
        let rows = [(0, ROW_GENERATED)];
        let h = numbers(&mut rng, bench.reference.width);
        let hook = HookPoint::block(LAYER);
        for phase in [Phase::Prefill, Phase::Decode] {
            // Each phase has its own product: the value is as this one computes it.
            let slots = bench.watched(phase, &rows, &h);
            let unlisted = (0..)
                .find(|j| slots.iter().all(|s| s.feature != *j))
                .unwrap();
            for (feature, value) in [(slots[0].feature, slots[0].value), (unlisted, 0.0)] {
                for (op, value) in [(Operator::Clamp, value), (Operator::Scale, 1.0)] {
                    let one = Intervention::new(hook, feature, op, Some(value));
                    bench.steering.set(0, &[one]).unwrap();
                    let got = bench.run(phase, &rows, &h);
                    assert_eq!(bits(&got), bits(&h), "{phase:?}, {op:?} of {feature}");
                    bench.steering.set(0, &[]).unwrap();
                }
            }
        }
    }
}

#[test]
fn steering_off_records_nothing() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::new(&gpu, &mut rng);
    let n = ROWS.len() * bench.reference.width;
    // Any bits must survive: NaN with payloads, subnormals.
    let h: Vec<f32> = (0..n).map(|_| f32::from_bits(rng.random())).collect();
    let poison = vec![0xdead_beefu32; ROWS.len() * bench.reference.k * 2];
    let features = || -> Vec<u32> {
        block_on(gpu.read_vec(bench.hook().features(), 0, poison.len())).unwrap()
    };
    let one = ["layers.3:5:clamp:3".parse().unwrap()];
    for phase in [Phase::Prefill, Phase::Decode] {
        bench.steering.set(0, &one).unwrap();
        assert!(bench.hook().encodes());
        bench.steering.set(0, &[]).unwrap();
        assert!(!bench.hook().encodes());
        gpu.write(bench.hook().features(), 0, &poison);
        assert_eq!(bits(&bench.run(phase, &ROWS, &h)), bits(&h));
        assert_eq!(features(), poison);
        // What does not depend on activations runs no encoder.
        let blind = [
            "layers.3:5:add:3".parse().unwrap(),
            "layers.3:6:project_out".parse().unwrap(),
        ];
        bench.steering.set(0, &blind).unwrap();
        bench.run(phase, &ROWS, &numbers(&mut rng, n));
        assert_eq!(features(), poison);
        bench
            .steering
            .set(0, &["layers.3:5:add:3:if-active".parse().unwrap()])
            .unwrap();
        bench.run(phase, &ROWS, &numbers(&mut rng, n));
        assert_ne!(features(), poison);
        bench.steering.set(0, &[]).unwrap();
    }
}

#[test]
fn a_change_writes_the_tables_alone() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::new(&gpu, &mut rng);
    let h = numbers(&mut rng, ROWS.len() * bench.reference.width);
    let lists: [Vec<Intervention>; 3] = [
        vec!["layers.3:5:clamp:3".parse().unwrap()],
        vec![
            "layers.3:6:clamp:9".parse().unwrap(),
            "layers.3:8:add:1".parse().unwrap(),
        ],
        vec![],
    ];
    let direct = lists.each_ref().map(|list| {
        bench.steering.set(0, list).unwrap();
        bits(&bench.run(Phase::Decode, &ROWS, &h))
    });
    assert!(direct[0] != direct[1] && direct[1] != direct[2]);
    // What was recorded under one steering follows the next.
    for (list, expected) in lists.iter().zip(&direct) {
        bench.steering.set(0, &lists[0]).unwrap();
        let encoder = bench.record(Phase::Decode, &ROWS, &h);
        bench.steering.set(0, list).unwrap();
        assert_eq!(&bits(&bench.finish(encoder, h.len())), expected);
    }
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::new(&gpu, &mut rng);
    let h = numbers(&mut rng, ROWS.len() * bench.reference.width);
    let good: Intervention = "layers.3:5:clamp:3".parse().unwrap();
    bench.steering.set(1, std::slice::from_ref(&good)).unwrap();
    let before = bits(&bench.run(Phase::Prefill, &ROWS, &h));
    for (text, word) in [
        ("layers.3:211:clamp:3", "0 to 210"),
        ("layers.4:5:clamp:3", "loaded are of layers.3"),
        ("layers.3:6:clamp:nan", "finite"),
    ] {
        let bad: Intervention = text.parse().unwrap();
        let message = bench
            .steering
            .set(1, &[good.clone(), bad])
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{message}");
    }
    assert!(matches!(
        bench.steering.set(2, &[]),
        Err(SteeringError::UnknownLane { lane: 2, lanes: 2 })
    ));
    assert_eq!(bits(&bench.run(Phase::Prefill, &ROWS, &h)), before);
    assert_eq!(bench.steering.interventions(1), [good]);
}

#[test]
fn fingerprints_tell_what_a_token_went_through() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let bench = Bench::new(&gpu, &mut rng);
    let prints = |lane: usize, texts: &[&str]| {
        let list: Vec<Intervention> = texts.iter().map(|t| t.parse().unwrap()).collect();
        bench.steering.set(lane, &list).unwrap();
        [ROW_BOS, 0, ROW_GENERATED].map(|flags| bench.steering.fingerprint(lane, flags))
    };
    assert_eq!(prints(0, &[]), [0; 3]);
    let clamp = prints(0, &["layers.3:5:clamp:3"]);
    assert!(clamp[0] == 0 && clamp[1] != 0 && clamp[1] == clamp[2]);
    // Where it applies is no part of what it does.
    let narrow = prints(1, &["layers.3:5:clamp:3:generated"]);
    assert_eq!(narrow, [0, 0, clamp[2]]);
    let wide = prints(1, &["layers.3:5:clamp:3:+bos"]);
    assert_eq!(wide, [clamp[1]; 3]);
    for other in [
        &["layers.3:5:clamp:3.5"][..],
        &["layers.3:6:clamp:3"],
        &["layers.3:5:add:3"],
        &["layers.3:5:clamp:3:if-active"],
        &["layers.3:5:clamp:3", "layers.3:6:clamp:3"],
    ] {
        assert_ne!(prints(0, other)[1], clamp[1], "{other:?}");
    }
    assert_eq!(bench.steering.fingerprint(7, 0), 0);
}

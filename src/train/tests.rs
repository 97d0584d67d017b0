//! Training on the GPU against its definition, and on data whose features are known.

use std::cell::Cell;

use rand::Rng;
use rand::rngs::StdRng;

use super::reference::{Reference, Tensor};
use super::{
    Control, Files, Made, Progress, Ring, Scale, Selection, Settings, State, TrainError, Trainer,
    Training, Weights,
};
use crate::gpu::{GpuOptions, MatmulKind};
use crate::sae::reference::{fresh_rng, numbers, software_gpu, software_gpus};
use crate::sae::{Encoder, Fit, HookPoint};

/// The largest difference, over the largest number.
fn off(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-9f64, |m, v| m.max(v.abs()));
    let pairs = got.iter().zip(expected);
    pairs.fold(0.0f64, |m, (g, e)| m.max((f64::from(*g) - e).abs())) / largest
}

#[test]
fn steps_follow_their_definition() {
    let mut rng = fresh_rng();
    let (width, latents, rows) = (rng.random_range(9..80), rng.random_range(90..150), 37);
    println!("width {width}, {latents} latents");
    let settings = Settings {
        latents,
        k: 5,
        rows,
        steps: 6,
        warmup: 2,
        rate: 1e-2,
        dead_after: 1,
        auxiliary: 7,
        auxiliary_weight: 0.5,
        ..Settings::default()
    };
    let row = |rng: &mut StdRng| -> Vec<f32> {
        let all = numbers(rng, width);
        all.iter().map(|v| 20.0 * v + 3.0).collect()
    };
    let sample: Vec<f32> = (0..200).flat_map(|_| row(&mut rng)).collect();
    let scale = Scale::of(&sample, width).unwrap();
    let mut weights = Weights::fresh(latents, &scale, rng.random());
    weights.bias = numbers(&mut rng, latents).iter().map(|v| 0.3 * v).collect();
    let tile = software_gpu(GpuOptions {
        many_rows: Some(MatmulKind::Tile),
        ..GpuOptions::default()
    });
    let gpus = software_gpus().into_iter().chain([tile]);
    let kinds = [Selection::TopK, Selection::BatchTopK];
    for (gpu, selection) in gpus.flat_map(|gpu| kinds.map(|kind| (gpu.clone(), kind))) {
        println!("{selection:?}");
        let settings = Settings {
            selection,
            ..settings.clone()
        };
        let trainer = Trainer::new(&gpu, &settings, &scale, &weights);
        let mut trainer = pollster::block_on(trainer).unwrap();
        let mut reference = Reference::new(&settings, &scale, &weights);
        let mut dead = 0;
        for number in 0..settings.steps {
            // The definition is followed from the GPU's own numbers, so that rounding does not add up.
            let before = pollster::block_on(trainer.weights()).unwrap();
            let moments = pollster::block_on(trainer.moments()).unwrap();
            reference.load(&before, &moments);
            let mut x = Vec::new();
            while x.is_empty() || !reference.are_clear(&x) {
                x.clear();
                while x.len() < rows * width {
                    let row = row(&mut rng);
                    if reference.is_clear(&row) {
                        x.extend(row);
                    }
                }
            }
            let step = pollster::block_on(trainer.step(&x)).unwrap();
            let loss = reference.descend_all(&x);
            assert!(
                (step.loss - loss).abs() < 1e-4 * loss,
                "{number}: {} {loss}",
                step.loss
            );
            dead += step.dead;
            assert_eq!(trainer.silent(), reference.silent);
            let gradients = pollster::block_on(trainer.gradients()).unwrap();
            type Of = fn(&Weights) -> &Vec<f32>;
            type Part = fn(&mut Reference) -> &mut Tensor;
            let parts: [(&str, Of, Part); 4] = [
                ("encoder", |w| &w.encoder, |r| &mut r.encoder),
                ("bias", |w| &w.bias, |r| &mut r.bias),
                ("decoder", |w| &w.decoder, |r| &mut r.decoder),
                ("b_dec", |w| &w.b_dec, |r| &mut r.b_dec),
            ];
            for (name, of, part) in parts {
                let gradient = &mut part(&mut reference).gradient;
                let by = off(of(&gradients), gradient);
                assert!(by < 1e-4, "step {number}, gradient of {name}: off by {by}");
                // A gradient that is nearly nothing may have either sign: Adam follows the GPU's.
                *gradient = of(&gradients).iter().map(|g| f64::from(*g)).collect();
            }
            reference.update();
            let now = pollster::block_on(trainer.weights()).unwrap();
            for (name, of, part) in parts {
                let by = off(of(&now), &part(&mut reference).weight);
                assert!(by < 1e-5, "step {number}, {name}: off by {by}");
            }
            assert_ne!(now, before);
            for row in now.decoder.chunks_exact(width) {
                let norm: f32 = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                assert!((norm - 1.0).abs() < 1e-5);
            }
        }
        assert!(dead > 0, "the auxiliary loss is not tested");
    }
}

/// Vectors that are sums of few of `features`, and those features, `[features, width]` of norm 1.
fn planted(rng: &mut StdRng, width: usize, features: usize, n: usize) -> (Vec<f32>, Vec<f32>) {
    let mut directions = numbers(rng, features * width);
    for row in directions.chunks_exact_mut(width) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    let offset = numbers(rng, width);
    let mut rows = Vec::with_capacity(n * width);
    for _ in 0..n {
        let mut row = offset.clone();
        for _ in 0..3 {
            let feature = &directions[rng.random_range(0..features) * width..][..width];
            let strength = rng.random_range(1.0..4.0);
            row.iter_mut()
                .zip(feature)
                .for_each(|(r, f)| *r += strength * f);
        }
        rows.extend(row);
    }
    (rows, directions)
}

fn small(seed: u64) -> Settings {
    Settings {
        latents: 96,
        k: 3,
        rows: 256,
        steps: 400,
        rate: 5e-3,
        warmup: 20,
        dead_after: 20,
        auxiliary: 8,
        seed,
        ..Settings::default()
    }
}

/// Trains on `rows`, `[n, width]`; the losses of the steps.
fn trained(settings: &Settings, rows: &[f32], width: usize) -> (Trainer, Vec<f64>) {
    let gpu = software_gpu(GpuOptions::default());
    let mut ring = Ring::memory(width, (rows.len() / width) as u64);
    ring.push(rows).unwrap();
    let training = Training {
        settings,
        ring: &mut ring,
        harvest: None,
        control: &Control::default(),
    };
    let mut losses = Vec::new();
    let mut tell = |progress: Progress| {
        if let Progress::Stepped { step, .. } = progress {
            losses.push(step.loss);
        }
    };
    let mut keep = |_: &State| Ok(());
    let trainer = pollster::block_on(training.run(&gpu, None, &mut keep, &mut tell)).unwrap();
    (trainer, losses)
}

#[test]
fn planted_features_are_found() {
    let mut rng = fresh_rng();
    let (width, features) = (40, 60);
    let (rows, directions) = planted(&mut rng, width, features, 20_000);
    let settings = small(rng.random());
    let (trainer, losses) = trained(&settings, &rows, width);
    let found = pollster::block_on(trainer.weights()).unwrap();
    let best = |direction: &[f32]| {
        let cosines = found.decoder.chunks_exact(width).map(|row| {
            let products = row.iter().zip(direction).map(|(a, b)| f64::from(a * b));
            products.sum::<f64>()
        });
        cosines.fold(-1.0, f64::max)
    };
    let cosines: Vec<f64> = directions.chunks_exact(width).map(best).collect();
    let recovered = cosines.iter().filter(|c| **c >= 0.9).count();
    println!("{recovered} of {features}, loss {:?}", losses.last());
    assert!(recovered * 10 >= features * 9, "{cosines:?}");
    assert!(losses[losses.len() - 1] < 0.1, "{losses:?}");
}

/// What a BatchTopK dictionary is used as has as many active latents as it was trained to have, on average.
#[test]
fn a_batch_dictionary_has_a_threshold() {
    let mut rng = fresh_rng();
    let (width, features) = (40, 60);
    let (rows, _) = planted(&mut rng, width, features, 20_000);
    let settings = Settings {
        selection: Selection::BatchTopK,
        ..small(rng.random())
    };
    let (trainer, losses) = trained(&settings, &rows, width);
    println!("loss {:?}", losses.last());
    assert!(losses[losses.len() - 1] < 0.1, "{losses:?}");
    let hook = HookPoint::block(2);
    let gpu = software_gpu(GpuOptions::default());
    for relative in [false, true] {
        let made = pollster::block_on(Made::of(&trainer, hook, relative, false)).unwrap();
        let Files { config, name, .. } = &made.files;
        assert_eq!(*name, "sae_weights.safetensors");
        assert!(config.contains("jumprelu"), "{config}");
        let dictionary = pollster::block_on(made.files.open(&gpu, hook, width)).unwrap();
        let encoder = pollster::block_on(Encoder::new(&gpu, &dictionary, 256)).unwrap();
        let cancel = Cell::new(false);
        let fit = Fit::measure(&encoder, hook, &rows[..2000 * width], &cancel);
        let fit = pollster::block_on(fit).unwrap().unwrap();
        println!("{fit:?}");
        assert!((fit.l0 - settings.k as f64).abs() < 0.2 * settings.k as f64);
        assert!(fit.fvu < 0.12, "{fit:?}");
    }
}

#[test]
fn a_frozen_decoder_stays_and_the_encoder_learns_to_use_it() {
    let mut rng = fresh_rng();
    let width = 40;
    let (rows, _) = planted(&mut rng, width, 60, 4000);
    let settings = Settings {
        steps: 300,
        frozen_decoder: true,
        ..small(rng.random())
    };
    let (trainer, losses) = trained(&settings, &rows, width);
    let found = pollster::block_on(trainer.weights()).unwrap();
    let fresh = Weights::fresh(settings.latents, trainer.scale(), settings.seed);
    assert!(found.decoder == fresh.decoder, "the decoder has moved");
    assert!(found.encoder != fresh.encoder && found.b_dec != fresh.b_dec);
    // What three random rows can rebuild of a vector is little, but it is learnt.
    let mean = |some: &[f64]| some.iter().sum::<f64>() / some.len() as f64;
    let (first, last) = (mean(&losses[..50]), mean(&losses[losses.len() - 50..]));
    println!("loss {first} to {last}");
    assert!(last < first, "{losses:?}");
}

#[test]
fn a_run_that_was_stopped_goes_on_as_if_it_had_not_been() {
    let mut rng = fresh_rng();
    let width = 17;
    let (rows, _) = planted(&mut rng, width, 30, 600);
    let mut settings = small(rng.random());
    (settings.steps, settings.rows, settings.dead_after) = (30, 64, 3);
    let gpu = software_gpu(GpuOptions::default());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring");
    let fill = |ring: &mut Ring| ring.push(&rows).unwrap();
    let run = |ring: &mut Ring, state: Option<State>, until: usize| {
        let (control, mut kept) = (Control::default(), Vec::new());
        let training = Training {
            settings: &settings,
            ring,
            harvest: None,
            control: &control,
        };
        let mut keep = |state: &State| {
            kept.push(State::from_bytes("state", &state.to_bytes())?);
            assert_eq!(kept.last(), Some(state));
            Ok(())
        };
        let mut tell = |progress: Progress| {
            if let Progress::Stepped { taken, .. } = progress {
                control.cancel.set(taken == until);
            }
        };
        let trainer = pollster::block_on(training.run(&gpu, state, &mut keep, &mut tell));
        (trainer, kept.pop())
    };
    let mut ring = Ring::memory(width, 600);
    fill(&mut ring);
    let whole = pollster::block_on(run(&mut ring, None, usize::MAX).0.unwrap().weights()).unwrap();
    let mut ring = Ring::disk(&path, width, 600, 0).unwrap();
    fill(&mut ring);
    let (stopped, state) = run(&mut ring, None, 11);
    assert!(matches!(stopped, Err(TrainError::Stopped { step: 11 })));
    let state = state.unwrap();
    let mut ring = Ring::disk(&path, width, 600, state.came).unwrap();
    let (again, _) = run(&mut ring, Some(state.clone()), usize::MAX);
    let again = pollster::block_on(again.unwrap().weights()).unwrap();
    assert!(whole == again, "the two runs differ");
    // Without the moments it would not be so.
    let mut forgot = state;
    let trained = forgot.trained.as_mut().unwrap();
    trained.moments[0].encoder.fill(0.0);
    let (other, _) = run(&mut ring, Some(forgot), usize::MAX);
    assert!(whole != pollster::block_on(other.unwrap().weights()).unwrap());
    let error = State::from_bytes("x", b"nothing").unwrap_err().to_string();
    assert!(error.contains("x is no state of training"), "{error}");
}

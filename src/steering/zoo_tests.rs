//! Steering by dictionaries of every format on the software adapter: activations of all latents, directions
//! in the residual's units.

use std::rc::Rc;

use pollster::block_on;
use rand::Rng;

use super::coefficient::coefficient;
use super::place::Site;
use super::{Intervention, Operator, Steering};
use crate::gpu::GpuOptions;
use crate::phi3::{MAX_ROWS, Phase, Row};
use crate::sae::reference::{assert_near, fresh_rng, numbers, software_gpu};
use crate::sae::zoo::zoo;
use crate::sae::{Dictionary, HookPoint, Wanted, encode_all};

const LAYER: usize = 1;

#[test]
fn clamps_use_each_rules_activation_and_the_residuals_units() {
    let mut rng = fresh_rng();
    let gpu = software_gpu(GpuOptions::default());
    let (width, latents) = (36, 1501);
    let mut most = 0;
    for specimen in zoo(&mut rng, width, latents) {
        let name = specimen.name;
        let wanted = Wanted {
            place: Some(HookPoint::block(LAYER)),
            ..Wanted::default()
        };
        let load = async |chosen: Option<&[u32]>| {
            let folder = specimen.folder();
            match chosen {
                None => Dictionary::find(&gpu, &folder, wanted).await,
                Some(list) => Dictionary::find_latents(&gpu, &folder, wanted, list).await,
            }
        };
        let bytes = (MAX_ROWS * width * 4) as u64;
        let residual = gpu.storage("residual", bytes).unwrap();
        let uniform = wgpu::BufferUsages::UNIFORM;
        let rows = gpu.buffer("rows", 4112, uniform).unwrap();
        let site = Site {
            gpu: gpu.clone(),
            residual: residual.clone(),
            prefill_rows: rows.clone(),
            decode_rows: rows.clone(),
            lanes: 1,
            width,
            layers: LAYER + 1,
        };
        let h: Vec<f32> = numbers(&mut rng, width).iter().map(|v| 2.0 * v).collect();
        let acts = specimen.encode(&h);
        let active = acts.iter().filter(|(f, _)| *f != 0.0).count();
        most = most.max(active);
        // The weakest clearly active latent, past any list's end where many are, and a clearly dead one.
        let sure = |on: bool| {
            let all = acts.iter().enumerate();
            all.filter(move |(_, (f, margin))| (*f > 0.0) == on && *f >= 0.0 && *margin > 1e-3)
        };
        let weakest = sure(true).min_by(|a, b| a.1.0.total_cmp(&b.1.0));
        let dead: Vec<_> = sure(false).collect();
        let dead = dead[rng.random_range(0..dead.len())];
        for (latent, (f, _)) in [weakest.unwrap(), dead] {
            let d = specimen.direction(&h, latent);
            let chosen = [latent as u32];
            for part in [None, Some(&chosen[..])] {
                let dictionary = block_on(load(part)).unwrap();
                let encodes = dictionary.encodes();
                let seen = match part {
                    None => block_on(encode_all(&gpu, &dictionary, &h)).unwrap().acts,
                    Some(_) => Vec::new(),
                };
                let dictionary = [Rc::new(dictionary)].into_iter();
                let steering = Steering::at(site.clone(), dictionary).unwrap();
                for op in Operator::ALL {
                    let value = rng.random_range(-3.0f32..3.0);
                    let one =
                        Intervention::new(HookPoint::block(LAYER), latent as u32, op, Some(value));
                    let what = format!("{name}: {one}, {f}, part {}", part.is_some());
                    let set = steering.set(0, &[one]);
                    if part.is_some() && op.row().reconstruction || !encodes && op.row().activation
                    {
                        assert!(set.is_err(), "{what}");
                        continue;
                    }
                    set.unwrap();
                    gpu.write(&rows, 0, &[1u32, 0, 0, 0]);
                    gpu.write(&rows, 16, &[Row::default()]);
                    gpu.write(&residual, 0, &h);
                    let device = gpu.device();
                    let mut encoder = device.create_command_encoder(&Default::default());
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    for hook in steering.hooks() {
                        hook.record(&mut pass, Phase::Decode, 1);
                    }
                    drop(pass);
                    gpu.queue().submit([encoder.finish()]);
                    let got: Vec<f32> = block_on(gpu.read_vec(&residual, 0, width)).unwrap();
                    let value = f64::from(value);
                    let dot = |a: &[f64]| a.iter().zip(&d).map(|(a, d)| a * d).sum::<f64>();
                    let wide: Vec<f64> = h.iter().map(|v| f64::from(*v)).collect();
                    let c = coefficient(op.name(), value, Some(*f), dot(&wide), dot(&d));
                    let mut expected: Vec<f64> =
                        wide.iter().zip(&d).map(|(h, d)| h + c * d).collect();
                    if op.row().reconstruction {
                        // Which side of its threshold a latent is on is for the tests of encoding.
                        let mut f: Vec<f64> = seen.iter().map(|f| f64::from(*f)).collect();
                        if op == Operator::ClampReplace {
                            f[latent] = value;
                        }
                        expected = specimen.decode(&h, &f);
                    }
                    assert_near(&got, &expected, 2e-5, &what);
                }
            }
        }
    }
    assert!(most > 256, "at most {most} were active");
}

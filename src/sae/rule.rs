//! What a dictionary computes, in the one form that every file format is brought to.
//!
//! # Maths
//!
//! For a vector h of the residual stream, `width` elements:
//!
//! - u = s N(h) - a b_dec, with the normalisation N, a scalar s and a = 1 or 0;
//! - q = encoder u, and the activations f by the [`Activations`] rule;
//! - y = sum of f_i g_i decoder_i + b_dec, and the reconstruction N'(t y) in the residual's units, with a
//!   scalar t, the decoder's gains g and N' undoing N.
//!
//! On loading, s goes into the encoder's rows and t and g into the decoder's (and both into b_dec), so that
//! on the GPU only N is left of them.
//!
//! N and N' are affine for a given h: N'(y) = r y + m. In the residual's units latent j's direction is
//! therefore d_j = r t g_j decoder_j, and the clamp of its activation to v is h + (v - f_j) d_j: what the
//! reconstruction changes by when f_j becomes v, whatever the dictionary's own units are. r and m depend
//! on h alone and are those of h before steering.

/// How activations follow from the products q of encoder rows and input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// p = (q + bias) scale; the `k` largest of max(p, 0).
    TopK {
        /// Active latents of a vector at most.
        k: usize,
    },
    /// p as for TopK; of each of `k` groups of latents side by side, the largest of max(p, 0).
    GroupMax {
        /// Groups, which the number of latents is a multiple of.
        k: usize,
    },
    /// max(q + bias, 0) scale where q + bias > threshold. ReLU is the threshold 0.
    JumpRelu,
    /// max(q slope + magnitude bias, 0) where q + gate bias > 0.
    Gated,
}

impl Activations {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Activations::TopK { .. } => "TopK",
            Activations::GroupMax { .. } => "GroupMax",
            Activations::JumpRelu => "ReLU or JumpReLU",
            Activations::Gated => "gated",
        }
    }
}

/// What is done to a vector before it is encoded, and undone on its reconstruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    #[default]
    None,
    /// N(h) = h sqrt(width) / |h| (`constant_norm_rescale`).
    Norm,
    /// N(h) = (h - mean) / (std + 1e-5), N'(y) = y std + mean, with the unbiased standard deviation
    /// (`layer_norm`).
    LayerNorm,
}

/// A dictionary's rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// How activations are computed.
    pub activations: Activations,
    /// N.
    pub normalization: Normalization,
    /// a: whether the decoder's bias is subtracted from the input.
    pub subtract_bias: bool,
    /// s.
    pub input_scale: f32,
    /// t.
    pub output_scale: f32,
}

impl Rule {
    /// `activations` of the vector as it is.
    pub fn new(activations: Activations) -> Self {
        Self {
            activations,
            normalization: Normalization::None,
            subtract_bias: false,
            input_scale: 1.0,
            output_scale: 1.0,
        }
    }

    /// Whether a latent's activation depends on that latent alone.
    pub fn is_local(&self) -> bool {
        matches!(self.activations, Activations::JumpRelu | Activations::Gated)
    }
}

/// One latent's numbers, as the kernels read them: `[bias, threshold, scale, 0]`, or for gated ones
/// `[gate bias, slope, magnitude bias, 1]`.
pub(super) type Latent = [f32; 4];

/// A latent of TopK, GroupMax, ReLU or JumpReLU.
pub(super) fn latent(bias: f32, threshold: f32, scale: f32) -> Latent {
    [bias, threshold, scale, 0.0]
}

/// A gated latent.
pub(super) fn gated(gate_bias: f32, slope: f32, magnitude_bias: f32) -> Latent {
    [gate_bias, slope, magnitude_bias, 1.0]
}

// Capability prelude: f32 stands in where the device has no f16.
alias real4 = vec4<f32>;

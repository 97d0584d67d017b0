// Capability prelude: the device computes in f16.
enable f16;
alias real4 = vec4<f16>;

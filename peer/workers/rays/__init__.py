"""The sample application: a path tracer whose pictures are the same however the work was cut. See docs/spec/rays.md."""

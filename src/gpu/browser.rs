//! The browser's adapter: wgpu keeps it to itself and does not map the subgroups feature, so that both
//! are reached by way of the call that hands the adapter out.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(inline_js = r#"
let adapter = null;
export function has_webgpu() {
  return typeof navigator !== "undefined" && !!navigator.gpu;
}
export function watch_adapter() {
  const gpu = navigator.gpu;
  if (Object.hasOwn(gpu, "requestAdapter")) return;
  gpu.requestAdapter = async (options) => {
    adapter = await GPU.prototype.requestAdapter.call(gpu, options);
    return adapter;
  };
}
export function adapter_has(feature) {
  return !!adapter && adapter.features.has(feature);
}
export function adapter_subgroups() {
  const { subgroupMinSize, subgroupMaxSize } = adapter?.info ?? {};
  return new Uint32Array([subgroupMinSize ?? 0, subgroupMaxSize ?? 1]);
}
export function adapter_is_fallback() {
  return !!adapter && !!(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
}
export function adapter_name() {
  const { description, vendor, architecture } = adapter?.info ?? {};
  return description || [vendor, architecture].filter(Boolean).join(" ");
}
export function on_uncaptured_error(device, report) {
  device.addEventListener("uncapturederror", ({ error }) =>
    report(error instanceof GPUOutOfMemoryError, error.message));
}
export function request_subgroups() {
  if (!adapter) return;
  adapter.requestDevice = (descriptor = {}) =>
    GPUAdapter.prototype.requestDevice.call(adapter, {
      ...descriptor,
      requiredFeatures: [...new Set([...(descriptor.requiredFeatures ?? []), "subgroups"])],
    });
}
"#)]
extern "C" {
    /// Whether the browser has WebGPU at all.
    pub fn has_webgpu() -> bool;
    /// Remembers the adapter that the browser hands out next.
    pub fn watch_adapter();
    /// Whether that adapter has a feature, by its WebGPU name.
    pub fn adapter_has(feature: &str) -> bool;
    /// The least and the most invocations of a subgroup, as the browser says; 0 and 1 where it says nothing.
    pub fn adapter_subgroups() -> Vec<u32>;
    /// Whether the browser says that it is its software adapter.
    pub fn adapter_is_fallback() -> bool;
    /// What the browser says that the adapter is; empty where it keeps that to itself.
    pub fn adapter_name() -> String;
    /// Makes `report` hear of a device's errors outside of any scope: whether it is one of memory, and the
    /// browser's words.
    pub fn on_uncaptured_error(device: &JsValue, report: &JsValue);
    /// Makes that adapter's device come with subgroups.
    pub fn request_subgroups();
}

//! What the device has been asked for and has not answered yet, and what its handlers have caught.
//!
//! A browser's GPU is another process: to wait for each answer would take longer than the work. Buffers and
//! kernels are therefore there at once, and [`Gpu::settle`] tells whether all of them came to be.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use super::{Gpu, GpuError};

/// What became of something that was asked for: nothing bad, or an error.
pub(super) type Outcome = Pin<Box<dyn Future<Output = Option<GpuError>>>>;

/// What the device's handlers have caught.
#[derive(Default)]
pub(super) struct Caught {
    /// Why the device was lost.
    lost: Option<String>,
    /// The first error outside of any scope that was not reported yet.
    error: Option<GpuError>,
}

/// Remembers the device's loss and its errors from now on.
pub(super) fn watch(device: &wgpu::Device) -> Arc<Mutex<Caught>> {
    let caught = Arc::new(Mutex::new(Caught::default()));
    let at = caught.clone();
    device.set_device_lost_callback(move |reason, message| {
        if let Ok(mut caught) = at.lock() {
            caught.lost.get_or_insert(format!("{reason:?}: {message}"));
        }
    });
    let at = caught.clone();
    let report = move |out_of_memory: bool, message: String| {
        let error = match out_of_memory {
            true => GpuError::OutOfMemory {
                what: "a computation".into(),
                bytes: 0,
            },
            false => GpuError::Validation(message),
        };
        if let Ok(mut caught) = at.lock() {
            caught.error.get_or_insert(error);
        }
    };
    #[cfg(not(target_arch = "wasm32"))]
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        let out_of_memory = matches!(error, wgpu::Error::OutOfMemory { .. });
        report(out_of_memory, error.to_string());
    }));
    // wgpu's own handler panics at an error that is neither of validation nor of memory.
    #[cfg(target_arch = "wasm32")]
    if let Some(device) = device.as_webgpu() {
        use wasm_bindgen::closure::Closure;
        let report = Closure::<dyn Fn(bool, String)>::new(report).into_js_value();
        super::browser::on_uncaptured_error(device.as_ref(), &report);
    }
    caught
}

impl Gpu {
    /// Notes something asked for whose outcome is to be looked at.
    pub(super) fn ask(&self, outcome: impl Future<Output = Option<GpuError>> + 'static) {
        self.asked.borrow_mut().push_back(Box::pin(outcome));
    }

    /// Waits until it is known of every buffer and kernel so far whether it came to be; the first error,
    /// if any.
    pub async fn settle(&self) -> Result<(), GpuError> {
        let mut first = None;
        loop {
            let next = self.asked.borrow_mut().pop_front();
            let Some(outcome) = next else { break };
            let error = outcome.await;
            first = first.or(error);
        }
        if first.is_some() {
            // A kernel with a fault must not be found again.
            self.kernels.borrow_mut().clear();
        }
        let checked = self.check();
        match first {
            // Why it is lost says more than what could not be made on it.
            Some(error) if !matches!(checked, Err(GpuError::Lost(_))) => Err(error),
            _ => checked,
        }
    }

    /// An error if the device was lost, or if it has reported one outside of a scope since the last check.
    pub fn check(&self) -> Result<(), GpuError> {
        let Ok(mut caught) = self.caught.lock() else {
            return Err(GpuError::Lost("an error handler stopped".into()));
        };
        if let Some(reason) = &caught.lost {
            return Err(GpuError::Lost(reason.clone()));
        }
        caught.error.take().map_or(Ok(()), Err)
    }
}

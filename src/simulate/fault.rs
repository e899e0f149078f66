//! Which of the misbehaviours in force meets a call.

use super::control::{Fault, METHODS, Misbehaviour};

#[derive(Default)]
pub(super) struct Faults(Vec<Misbehaviour>);

impl Faults {
    /// Says what is wrong with a misbehaviour that could never meet a call, or takes it.
    pub(super) fn add(&mut self, misbehaviour: Misbehaviour) -> Result<(), String> {
        if misbehaviour.calls == Some(0) {
            return Err("`calls` must be at least 1, or left out".into());
        }
        if let Some(method) = &misbehaviour.method
            && !METHODS.contains(&method.as_str())
        {
            return Err(format!("no method `{method}`; there are `{}`", METHODS.join("`, `")));
        }
        if let (Some(_), Some(method)) = (&misbehaviour.view, &misbehaviour.method)
            && method != "metashrew_view"
        {
            return Err(format!("only calls of `metashrew_view` have a view, not those of `{method}`"));
        }
        if let Fault::Status { code } = misbehaviour.fault
            && !(200..=599).contains(&code)
        {
            return Err(format!("no HTTP status `{code}`; a status is a number from 200 to 599"));
        }
        self.0.push(misbehaviour);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The oldest misbehaviour that this call meets, which is thereby used once.
    pub(super) fn take(&mut self, method: &str, view: Option<&str>) -> Option<Fault> {
        let index = self.0.iter().position(|misbehaviour| {
            misbehaviour.method.as_deref().is_none_or(|wanted| wanted == method)
                && (misbehaviour.view.is_none() || misbehaviour.view.as_deref() == view)
        })?;
        let found = &mut self.0[index];
        let fault = found.fault.clone();
        if let Some(calls) = &mut found.calls {
            *calls -= 1;
            if *calls == 0 {
                self.0.remove(index);
            }
        }
        Some(fault)
    }
}

//! The moments between the steps of plans, at which a test makes a fault happen: it is told of each, kills what it
//! wants killed, and lets the rest go on. Without the feature `faults`, which no release has, nothing of it is there.

use crate::service::Service;
use banger_model::{Plan, VmId};

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("the feature `faults` is for tests: no release may have it");

/// Carries out one step of a plan, with a moment for faults before and after it.
pub async fn step<T>(
    service: &Service,
    vm: Option<VmId>,
    plan: Plan,
    word: &'static str,
    act: impl Future<Output = T>,
) -> T {
    moment::come(service, vm, plan, word, false).await;
    let done = act.await;
    moment::come(service, vm, plan, word, true).await;
    done
}

#[cfg(not(any(test, feature = "faults")))]
mod moment {
    use super::*;

    /// Nothing happens.
    pub async fn come(_: &Service, _: Option<VmId>, _: Plan, _: &'static str, _: bool) {}
}

/// Where a test listens at `faults.sock` in the run folder, in which only root makes anything, it is told the point and the
/// VM, and this waits until the test hangs up.
#[cfg(all(feature = "faults", not(test)))]
mod moment {
    use super::*;
    use banger_model::Point;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    pub async fn come(service: &Service, vm: Option<VmId>, plan: Plan, step: &'static str, after: bool) {
        let Ok(mut test) = UnixStream::connect(service.config.run.join("faults.sock")).await else { return };
        let vm = vm.map(|vm| vm.to_string()).unwrap_or_default();
        let line = format!("{} {vm}\n", Point { plan, step, after });
        if test.write_all(line.as_bytes()).await.is_ok() {
            // Whatever it answers, and if it only goes away: on with it.
            let _ = test.read(&mut [0]).await;
        }
    }
}

/// In tests of this crate, which run the service on one thread, a function of that thread decides.
#[cfg(test)]
pub mod moment {
    use super::*;
    use banger_model::Point;
    use std::cell::RefCell;

    /// Is told a point and a VM, and says whether the service dies there.
    pub type Hook = Box<dyn FnMut(Point, Option<VmId>) -> bool>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// From now on `hook` decides; none for no faults.
    pub fn set(hook: Option<Hook>) {
        HOOK.replace(hook);
    }

    pub async fn come(_: &Service, vm: Option<VmId>, plan: Plan, step: &'static str, after: bool) {
        let point = Point { plan, step, after };
        let dies = HOOK.with_borrow_mut(|hook| hook.as_mut().is_some_and(|hook| hook(point, vm)));
        if dies {
            std::future::pending::<()>().await;
        }
    }
}

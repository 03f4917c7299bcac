//! From the configuration to the tasks.

use jiff::SignedDuration;
use policy::schedule::{Schedule, TimeOfDay, TimesOfDay};

use super::task::{Planned, Task};
use crate::config::{Config, Timing};

/// How often is looked for snapshots that have had their time.
const EXPIRE_EVERY: SignedDuration = SignedDuration::from_mins(10);

/// All that a configuration wants done by the clock. `host` makes this machine begin at other times than others.
pub fn tasks(config: &Config, host: &str) -> Vec<Planned> {
    let expire = Planned { task: Task::Expire, schedule: Schedule::Every(EXPIRE_EVERY), seed: String::new() };
    let mut tasks = vec![expire];
    for project in config.projects.values() {
        let seed = format!("{host}/{}", project.name);
        for plan in project.plans.iter().filter_map(|name| config.plans.get(name)) {
            if let Some(snapshot) = &plan.snapshot {
                let task = Task::Snapshot { project: project.name.clone(), plan: plan.name.clone() };
                let schedule = schedule(&snapshot.timing, SignedDuration::ZERO);
                tasks.push(Planned { task, schedule, seed: seed.clone() });
            }
            let Some(backup) = &plan.backup else { continue };
            let spread = SignedDuration::try_from(backup.spread).unwrap_or(SignedDuration::ZERO);
            for repository in &backup.to {
                let (project, plan, repository) = (project.name.clone(), plan.name.clone(), repository.clone());
                let task = Task::Backup { project, plan, repository };
                tasks.push(Planned { task, schedule: schedule(&backup.timing, spread), seed: seed.clone() });
            }
            let Some(check) = &plan.check else { continue };
            for repository in &backup.to {
                let task = Task::Check { repository: repository.clone(), plan: plan.name.clone() };
                let seed = format!("{host}/{repository}");
                let planned = Planned { task, schedule: schedule(&check.timing, SignedDuration::ZERO), seed };
                // Several projects with one plan: the repository is the same.
                if !tasks.contains(&planned) {
                    tasks.push(planned);
                }
            }
        }
    }
    tasks
}

fn schedule(timing: &Timing, spread: SignedDuration) -> Schedule {
    match timing {
        Timing::At(times) => {
            let times = times.iter().map(|at| TimeOfDay { days: at.days.clone(), time: at.time }).collect();
            Schedule::At(TimesOfDay { times, spread })
        }
        Timing::Every(interval) => Schedule::Every(SignedDuration::try_from(*interval).unwrap_or(SignedDuration::MAX)),
    }
}

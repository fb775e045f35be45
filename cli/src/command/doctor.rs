//! `snapd doctor`.
use std::time::Duration;

use clap::Args;
use engine::features::FEATURES;
use engine::inventory::Pid;
use supervisor::wire::Obstacle;
use supervisor::{Error, bridge, client};

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::json;
use crate::output::{print, print_json};
use crate::render::{Align, Style, Table};
use crate::values;

/// Tells what this machine can do, and what stands in the way of saving a program
///
/// Without an argument: the features of kernel and account, and what each is for. With a process or
/// workload: every obstacle to saving it, all at once; it stands still for a moment, and runs on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  snapd doctor
  snapd doctor 4242
  snapd doctor train --json | jq '.obstacles[].code'

Exits with 1 if something that is needed is missing, or saving would be refused.")]
pub(crate) struct Doctor {
    /// A process, by its PID, or a workload, by its name
    #[arg(value_name = "PID|NAME", value_parser = patient)]
    patient: Option<Patient>,
    /// How long it may take until all of it stands still
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = values::interval, allow_hyphen_values = true)]
    freeze_timeout: Duration,
}

/// Who is looked at. A number is a PID: names that are numbers alone are rare, and have other commands.
#[derive(Debug, Clone)]
enum Patient {
    Process(i32),
    Workload(String),
}

fn patient(text: &str) -> Result<Patient, policies::Unaccepted> {
    match text.parse() {
        Ok(pid) => Ok(Patient::Process(pid)),
        Err(_) => values::name(text).map(Patient::Workload),
    }
}

impl Doctor {
    pub(super) fn execute(self, context: &Context) -> Outcome {
        let obstacles = match &self.patient {
            None => None,
            Some(patient) => Some(self.examine(context, patient)?),
        };
        let features: Vec<_> = FEATURES.iter().map(feature).collect();
        let lacking = features.iter().any(|feature| feature.needed && !feature.available);
        let refused = obstacles.as_ref().is_some_and(|found| !found.is_empty());
        let code = i32::from(refused || (self.patient.is_none() && lacking));
        if context.json {
            let obstacles = obstacles.iter().flatten().map(json::Obstacle::of).collect();
            print_json(&json::Doctor { kernel: kernel(), features, obstacles })?;
        } else if let Some(found) = obstacles {
            print(&told(&found))?;
        } else {
            print(&table(&features))?;
        }
        Ok(code)
    }

    fn examine(&self, context: &Context, patient: &Patient) -> Result<Vec<Obstacle>, Failure> {
        Ok(match patient {
            Patient::Process(pid) => {
                bridge::check_target(*pid)?;
                // What cannot even be held has an obstacle too.
                match bridge::inspect(&[Pid(*pid)], &[], self.freeze_timeout, false) {
                    Err(Error::Engine(engine::error::Error::Refused(all))) => {
                        all.iter().map(Obstacle::of).collect()
                    }
                    other => other?,
                }
            }
            Patient::Workload(name) => client::look(&context.home()?, name)?,
        })
    }
}

fn feature(one: &engine::features::Feature) -> json::Feature {
    let (available, needed) = (one.is_available(), one.needed);
    let (name, purpose, remedy) = (one.name, one.purpose, one.remedy);
    json::Feature { name, available, needed, purpose, remedy }
}

fn kernel() -> String {
    let names = nix::sys::utsname::uname();
    names.map(|names| names.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn table(features: &[json::Feature]) -> String {
    let mut table = Table::new(&[
        ("FEATURE", Align::Left),
        ("AVAILABLE", Align::Left),
        ("PURPOSE", Align::Left),
        ("REMEDY", Align::Cut),
    ]);
    for one in features {
        let remedy = match (one.available, one.needed) {
            (true, _) => String::new(),
            (false, true) => one.remedy.to_owned(),
            (false, false) => format!("(optional) {}", one.remedy),
        };
        let available = if one.available { "yes" } else { "no" };
        table.row([one.name.to_owned(), available.to_owned(), one.purpose.to_owned(), remedy]);
    }
    format!("kernel {}\n{}", kernel(), table.text())
}

fn told(found: &[Obstacle]) -> String {
    if found.is_empty() {
        return "nothing stands in the way of a snapshot\n".into();
    }
    crate::exit::obstacles(found, Style::of_stdout())
}

//! `filed config`: the documented defaults, a check, and what applies here.

use serde::Serialize;

use super::args::{Common, Config, ConfigAction, Form};
use super::exit::Exit;
use super::output;
use super::setup::common_flags;
use crate::config::{self, DEFAULT_FILE, Role, Sources, check_file};
use crate::store::show_path;

pub(super) fn run(common: &Common, args: &Config) -> anyhow::Result<Exit> {
    let load = || -> anyhow::Result<_> {
        let (file, flags) = (common.config.clone(), common_flags(common)?);
        let sources = Sources::from_process(Role::Command, file, flags);
        Ok(config::load(&sources)?)
    };
    match &args.action {
        ConfigAction::Default => output::print(DEFAULT_FILE),
        ConfigAction::Check { file: Some(file) } => {
            check_file(file)?;
            output::print(&format!("{}: valid\n", show_path(file)));
        }
        ConfigAction::Check { file: None } => {
            let loaded = load()?;
            let mut text = String::new();
            for file in &loaded.files {
                text += &format!("{}: valid\n", show_path(file));
            }
            text += "the configuration that applies here is valid\n";
            output::print(&text);
        }
        ConfigAction::Show { json } => {
            let loaded = load()?;
            let shown = config::show(&loaded)?;
            let width = shown.iter().map(|one| one.value.len()).max().unwrap_or(0);
            for one in &shown {
                match Form::of_flag(*json) {
                    Form::Json => output::json_line(&Line {
                        v: 1,
                        r#type: "setting",
                        key: &one.key,
                        value: &one.value,
                        origin: one.origin.to_string(),
                    }),
                    Form::Text => output::print(&format!(
                        "{:<20} {:<width$}  {}\n",
                        one.key, one.value, one.origin
                    )),
                }
            }
        }
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    key: &'a str,
    value: &'a str,
    origin: String,
}

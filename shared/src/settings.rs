//! The function's settings: read once at start from environment variables, typed, refused by name when wrong.

use thiserror::Error;

/// Name of the ledger's `DynamoDB` table.
pub const LEDGER_TABLE: &str = "FORGEGUARD_LEDGER_TABLE";
/// Name of the SSM parameter that holds the remediation's policy document.
pub const POLICY_PARAMETER: &str = "FORGEGUARD_POLICY_PARAMETER";
/// Name of the event bus that outcomes are put on; `default` when unset.
pub const EVENT_BUS: &str = "FORGEGUARD_EVENT_BUS";
/// `Orchestrated` where playbooks wake the functions, so that the schedule begins nothing by itself; `Direct` when unset.
pub const MODE: &str = "FORGEGUARD_MODE";
/// `true` makes every run stop after its plan; `false` when unset.
pub const DRY_RUN: &str = "FORGEGUARD_DRY_RUN";
/// Least severe level that is logged: `error`, `warn`, `info`, `debug` or `trace`; `info` when unset. A release build has no
/// lines of the last two.
pub const LOG: &str = "FORGEGUARD_LOG";

/// `true` under `sam local invoke`: the AWS SAM CLI sets it for every function that it runs.
pub const SAM_LOCAL: &str = "AWS_SAM_LOCAL";

/// What the environment tells a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The ledger's table.
    pub ledger_table: String,
    /// The SSM parameter with the policy document.
    pub policy_parameter: String,
    /// The bus that outcomes are put on.
    pub event_bus: String,
    /// Whether playbooks say what is done about an alarm, and not the schedule.
    pub orchestrated: bool,
    /// Whether every run stops after its plan.
    pub dry_run: bool,
    /// Whether the function runs under `sam local invoke`, where its ARN names an account that is nobody's.
    pub local: bool,
    /// Least severe level that is logged.
    pub log: tracing::Level,
}

/// A setting that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A required variable is not there.
    #[error("environment variable {name} is not set; set it to {form}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it should hold.
        form: &'static str,
    },
    /// A variable holds something else than it should.
    #[error("environment variable {name} is {value:?}; it must be {form}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        form: &'static str,
    },
}

impl Settings {
    /// Reads the settings from the process environment.
    #[allow(clippy::disallowed_methods)] // The one allowed reading of the environment.
    pub fn from_environment() -> Result<Self, SettingsError> {
        Self::parse(|name| std::env::var(name).ok())
    }

    /// Reads the settings through `look_up`.
    pub fn parse(look_up: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let given = |name: &str| {
            look_up(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let required = |name, form| given(name).ok_or(SettingsError::Missing { name, form });
        Ok(Self {
            ledger_table: required(LEDGER_TABLE, "the name of the ledger's DynamoDB table")?,
            policy_parameter: required(
                POLICY_PARAMETER,
                "the name of the SSM parameter that holds the policy document",
            )?,
            event_bus: given(EVENT_BUS).unwrap_or_else(|| "default".to_owned()),
            orchestrated: match given(MODE).as_deref() {
                None | Some("Direct") => false,
                Some("Orchestrated") => true,
                Some(other) => {
                    return Err(SettingsError::Malformed {
                        name: MODE,
                        value: other.to_owned(),
                        form: "`Direct` or `Orchestrated`",
                    });
                }
            },
            dry_run: match given(DRY_RUN).as_deref() {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => {
                    return Err(SettingsError::Malformed {
                        name: DRY_RUN,
                        value: other.to_owned(),
                        form: "`true` or `false`",
                    });
                }
            },
            local: given(SAM_LOCAL).as_deref() == Some("true"),
            log: match given(LOG) {
                None => tracing::Level::INFO,
                Some(value) => value.parse().map_err(|_| SettingsError::Malformed {
                    name: LOG,
                    value,
                    form: "`error`, `warn`, `info`, `debug` or `trace`",
                })?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::parse(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_two_names_are_enough() {
        let settings = from(&[(LEDGER_TABLE, "ledger"), (POLICY_PARAMETER, "/p")]).unwrap();
        assert_eq!(settings.event_bus, "default");
        assert!(!settings.dry_run && !settings.local && !settings.orchestrated);
        assert_eq!(settings.log, tracing::Level::INFO);
    }

    #[test]
    fn a_function_knows_that_it_runs_under_sam_local_invoke() {
        let local = |value| {
            let names = [(LEDGER_TABLE, "ledger"), (POLICY_PARAMETER, "/p")];
            from(&[names[0], names[1], (SAM_LOCAL, value)])
                .unwrap()
                .local
        };
        assert!(local("true"));
        assert!(!local("false"));
    }

    #[test]
    fn a_missing_or_blank_name_is_refused_by_name() {
        let error = from(&[(LEDGER_TABLE, "  "), (POLICY_PARAMETER, "/p")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable FORGEGUARD_LEDGER_TABLE is not set; \
             set it to the name of the ledger's DynamoDB table"
        );
    }

    #[test]
    fn a_malformed_switch_is_refused_rather_than_guessed() {
        let error = from(&[
            (LEDGER_TABLE, "ledger"),
            (POLICY_PARAMETER, "/p"),
            (DRY_RUN, "yes"),
        ])
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "environment variable FORGEGUARD_DRY_RUN is \"yes\"; it must be `true` or `false`"
        );
    }
}

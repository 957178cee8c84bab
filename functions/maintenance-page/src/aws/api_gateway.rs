//! A page of an API of its own, to which a custom domain is mapped while it is up.
//!
//! The variables of the API's stage say what the page tells, and one for each mapping that shows it says whose it is
//! there. A mapping has no version: it is read again right before it
//! is changed (Amazon API Gateway API Reference, `UpdateBasePathMapping`).
//!
//! Nor has a mapping an end. Before the page goes up, an execution of a state machine is begun that waits for it. The same
//! name and input once more is the same execution while that is open; afterwards, or with another input, the name is
//! taken (AWS Step Functions API Reference, `StartExecution`).

use aws_sdk_apigateway::Client;
use aws_sdk_apigateway::config::http::HttpResponse;
use aws_sdk_apigateway::error::SdkError;
use aws_sdk_apigateway::operation::get_stage::{GetStageError, GetStageOutput};
use aws_sdk_apigateway::types::{Op, PatchOperation};
use aws_sdk_sfn::operation::start_execution::StartExecutionError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use chrono::{DateTime, Utc};
use shared::aws_error::AwsError;
use shared::remediation::{Clearance, Work};
use std::collections::{BTreeSet, HashMap};

use crate::MaintenancePage;
use crate::aws::{InFront, Moved};
use crate::error::PageError;
use crate::in_force::{InForce, Stage};
use crate::plan::{self, End, Notice, Observed, Plan, Route, Snapshot, TIME, holder_of};
use crate::policy::Mapping;
use crate::wording::{self, as_variable, of_variable};

/// Who put the page up, where an earlier release did: one variable for every mapping.
const BY: &str = "by";
const INCIDENT: &str = "incident";
const SINCE: &str = "since";
const NEXT_UPDATE_MINUTES: &str = "next_update_minutes";
const TITLE: &str = "title";
const MESSAGE: &str = "message";
const STATUS_URL: &str = "status_url";
const ESTIMATED_END: &str = "estimated_end";
/// What the page does not show; a variable cannot be empty.
const NONE: &str = "none";
/// The name for a responder who mapped the domain without leaving one.
const ANOTHER: &str = "another-hand";

/// A custom domain, by its mapping.
pub(super) struct CustomDomain<'a> {
    pub(super) client: &'a Client,
    pub(super) states: &'a aws_sdk_sfn::Client,
    pub(super) policy: &'a Mapping,
}

impl CustomDomain<'_> {
    async fn route(&self) -> Result<Route, PageError> {
        let mapping = self
            .client
            .get_base_path_mapping()
            .domain_name(self.policy.domain_name())
            .set_domain_name_id(self.policy.domain_name_id().map(str::to_owned))
            .base_path(self.policy.base_path())
            .send()
            .await
            .map_err(|error| self.failed("apigateway:GET", &error))?;
        Ok(Route {
            api: mapping.rest_api_id().unwrap_or_default().to_owned(),
            stage: mapping.stage().unwrap_or_default().to_owned(),
        })
    }

    pub(super) async fn stage(
        &self,
    ) -> Result<GetStageOutput, SdkError<GetStageError, HttpResponse>> {
        self.client
            .get_stage()
            .rest_api_id(&self.policy.maintenance_api)
            .stage_name(&self.policy.maintenance_stage)
            .send()
            .await
    }

    async fn variables(&self) -> Result<HashMap<String, String>, PageError> {
        let stage = self.stage().await;
        let stage = stage.map_err(|error| self.failed("apigateway:GET", &error))?;
        Ok(stage.variables().cloned().unwrap_or_default())
    }

    async fn set_variables(
        &self,
        page: &Route,
        operations: Vec<PatchOperation>,
        _clearance: Clearance<'_>,
    ) -> Result<(), PageError> {
        self.client
            .update_stage()
            .rest_api_id(&page.api)
            .stage_name(&page.stage)
            .set_patch_operations(Some(operations))
            .send()
            .await
            .map_err(|error| self.failed("apigateway:PATCH", &error))?;
        Ok(())
    }

    async fn lead_to(&self, route: &Route, _clearance: Clearance<'_>) -> Result<(), PageError> {
        let operations = vec![
            replace("/restapiId", &route.api),
            replace("/stage", &route.stage),
        ];
        self.client
            .update_base_path_mapping()
            .domain_name(self.policy.domain_name())
            .set_domain_name_id(self.policy.domain_name_id().map(str::to_owned))
            .base_path(self.policy.base_path())
            .set_patch_operations(Some(operations))
            .send()
            .await
            .map_err(|error| self.failed("apigateway:PATCH", &error))?;
        Ok(())
    }

    /// Has the page end by itself. `Overtaken` where the end's name is taken.
    async fn begin(&self, end: End, _clearance: Clearance<'_>) -> Result<Moved, PageError> {
        let begun = self
            .states
            .start_execution()
            .state_machine_arn(&end.machine)
            .name(end.name)
            .input(serde_json::to_string(&end.input).unwrap_or_default())
            .send()
            .await;
        match begun {
            Ok(_) => Ok(Moved::There),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(StartExecutionError::is_execution_already_exists) =>
            {
                Ok(Moved::Overtaken)
            }
            Err(error) => Err(PageError::Aws(AwsError::new(
                "states:StartExecution",
                end.machine,
                &error,
            ))),
        }
    }

    async fn take_name_off(
        &self,
        page: &Route,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<(), PageError> {
        let operation = PatchOperation::builder().op(Op::Remove);
        let path = format!("/variables/{}", self.policy.holder());
        let operation = operation.path(path).build();
        let clearance = work.clear("take our name off the page")?;
        self.set_variables(page, vec![operation], clearance).await
    }

    /// Takes our name off the page where a death left it there after the domain was led back.
    pub(super) async fn forget(&self, work: &Work<'_, MaintenancePage>) -> Result<(), PageError> {
        let variables = self.variables().await?;
        let held = variables.get(&self.policy.holder());
        if held.is_some_and(|held| holder_of(held).0 == plan::BY) {
            self.take_name_off(&self.page(), work).await?;
        }
        Ok(())
    }

    fn page(&self) -> Route {
        Route {
            api: self.policy.maintenance_api.clone(),
            stage: self.policy.maintenance_stage.clone(),
        }
    }

    fn is_page(&self, route: &Route) -> bool {
        *route == self.page()
    }

    pub(super) fn failed<E>(
        &self,
        operation: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> PageError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        PageError::Aws(AwsError::new(
            operation,
            self.policy.mapping.as_str(),
            error,
        ))
    }
}

impl InFront for CustomDomain<'_> {
    async fn look(&self) -> Result<Observed, PageError> {
        let (route, variables) = tokio::try_join!(self.route(), self.variables())?;
        Ok(Observed {
            notice: self
                .is_page(&route)
                .then(|| notice(&variables, &self.policy.holder())),
            route: Some(route),
            version: None,
            in_force: None,
        })
    }

    async fn survey(&self, url: &str) -> Result<Observed, PageError> {
        let (route, (stage, variables), domain, access) =
            tokio::try_join!(self.route(), self.served(), self.domain(), self.access(url))?;
        let shown = stage != Stage::Missing && self.is_page(&route);
        Ok(Observed {
            notice: shown.then(|| notice(&variables, &self.policy.holder())),
            route: Some(route),
            version: None,
            in_force: Some(InForce {
                domain,
                stage,
                access,
            }),
        })
    }

    async fn raise(
        &self,
        plan: &Plan,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let Some(routes) = &plan.routes else {
            return Ok(Moved::Overtaken);
        };
        // What nobody is led to can be prepared while the mapping is read again; and a page whose end is not begun does
        // not go up.
        let clearance = work.clear("announce the page")?;
        let announced = announced(&plan.announced(), &self.policy.holder());
        let announced = self.set_variables(&routes.page, announced, clearance);
        let clearance = work.clear("have the page end by itself")?;
        let begun = async {
            match plan.end(self.policy) {
                Some(end) => self.begin(end, clearance).await,
                None => Ok(Moved::There),
            }
        };
        let (route, (), begun) = tokio::try_join!(self.route(), announced, begun)?;
        if route == routes.page {
            return Ok(Moved::There);
        }
        if route != routes.service || begun == Moved::Overtaken {
            return Ok(Moved::Overtaken);
        }
        let clearance = work.clear("lead the domain to the page")?;
        self.lead_to(&routes.page, clearance).await?;
        Ok(Moved::There)
    }

    /// Whose page it is stays as it is: a hand that takes it over meanwhile keeps it.
    async fn reword(
        &self,
        _observed: &Observed,
        notice: &Notice,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let clearance = work.clear("have the page say something else")?;
        self.set_variables(&self.page(), words(notice), clearance)
            .await?;
        Ok(Moved::There)
    }

    async fn lower(
        &self,
        _observed: &Observed,
        snapshot: &Snapshot,
        work: &Work<'_, MaintenancePage>,
    ) -> Result<Moved, PageError> {
        let Some(service) = &snapshot.service else {
            return Err(PageError::NoWayBack {
                subject: self.policy.mapping.to_string(),
            });
        };
        let (page, variables) = tokio::try_join!(self.route(), self.variables())?;
        if !self.is_page(&page) {
            return Ok(Moved::Overtaken);
        }
        let clearance = work.clear("lead the domain back to the service")?;
        self.lead_to(service, clearance).await?;
        // Whoever maps the domain to the page by hand next is not taken for us. The names of other mappings stay.
        if variables.contains_key(&self.policy.holder()) {
            self.take_name_off(&page, work).await?;
        }
        Ok(Moved::There)
    }
}

fn replace(path: &str, value: &str) -> PatchOperation {
    let operation = PatchOperation::builder().op(Op::Replace);
    operation.path(path).value(value).build()
}

fn set(name: &str, value: &str) -> PatchOperation {
    replace(&format!("/variables/{name}"), value)
}

fn announced(notice: &Notice, holder: &str) -> Vec<PatchOperation> {
    let whose = [
        set(holder, &notice.held()),
        set(INCIDENT, &notice.incident),
        set(SINCE, &notice.since.format(TIME).to_string()),
    ];
    whose.into_iter().chain(words(notice)).collect()
}

/// What the page says by the policy.
fn words(notice: &Notice) -> Vec<PatchOperation> {
    let text = |text: &Option<String>, unsaid: &str| as_variable(text.as_deref().unwrap_or(unsaid));
    let end = notice.estimated_end;
    let end = end.map_or_else(|| NONE.to_owned(), |end| end.format(TIME).to_string());
    vec![
        set(NEXT_UPDATE_MINUTES, &notice.next_update_minutes.to_string()),
        set(TITLE, &text(&notice.title, wording::TITLE)),
        set(MESSAGE, &text(&notice.message, wording::MESSAGE)),
        set(STATUS_URL, &text(&notice.status_url, NONE)),
        set(ESTIMATED_END, &end),
    ]
}

fn notice(variables: &HashMap<String, String>, holder: &str) -> Notice {
    let variable = |name: &str| variables.get(name).map(String::as_str);
    let since = variable(SINCE).and_then(|since| since.parse::<DateTime<Utc>>().ok());
    let held = variable(holder).or_else(|| variable(BY));
    let (by, page) = holder_of(held.unwrap_or(ANOTHER));
    let incident = page.map(|(_, incident)| incident);
    let minutes = variable(NEXT_UPDATE_MINUTES).and_then(|minutes| minutes.parse().ok());
    let said = |name: &str, unsaid: &str| {
        let said = variable(name).map(of_variable);
        said.filter(|said| said != unsaid)
    };
    Notice {
        by: by.to_owned(),
        incident: incident
            .or_else(|| variable(INCIDENT))
            .unwrap_or_default()
            .to_owned(),
        since: since.unwrap_or_default(),
        until: page.map(|(until, _)| until),
        next_update_minutes: minutes.unwrap_or_default(),
        title: said(TITLE, wording::TITLE),
        message: said(MESSAGE, wording::MESSAGE),
        status_url: said(STATUS_URL, NONE),
        estimated_end: variable(ESTIMATED_END).and_then(|end| end.parse().ok()),
        retry_after: None,
        bypass_sha256: None,
        health_check_paths: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(operations: &[PatchOperation]) -> HashMap<String, String> {
        let allowed = |it: char| it.is_ascii_alphanumeric() || "-._~:/?#&=,".contains(it);
        let variable = |operation: &PatchOperation| {
            let name = operation.path().unwrap().strip_prefix("/variables/");
            let value = operation.value().unwrap();
            assert!(value.chars().all(allowed), "{value}");
            (name.unwrap().to_owned(), value.to_owned())
        };
        operations.iter().map(variable).collect()
    }

    #[test]
    fn what_is_announced_is_read_back() {
        for (until, text) in [
            (None, None),
            (Some(DateTime::UNIX_EPOCH), Some("It\u{2019}s <down> 9 %")),
        ] {
            let text = text.map(str::to_owned);
            let put = Notice {
                by: plan::BY.to_owned(),
                incident: "inc-1".to_owned(),
                since: DateTime::UNIX_EPOCH,
                until,
                next_update_minutes: 15,
                title: text.clone(),
                message: text.clone(),
                status_url: text,
                estimated_end: until,
                retry_after: None,
                bypass_sha256: None,
                health_check_paths: BTreeSet::new(),
            };
            let variables = variables(&announced(&put, "by_1"));
            assert_eq!(notice(&variables, "by_1"), put);
            assert_eq!(notice(&variables, "by_2").by, ANOTHER);
        }
        assert_eq!(notice(&HashMap::new(), "by_1").by, ANOTHER);
        // An earlier release named itself once for all mappings.
        let earlier = HashMap::from([(BY.to_owned(), plan::BY.to_owned())]);
        assert_eq!(notice(&earlier, "by_1").by, plan::BY);
    }
}

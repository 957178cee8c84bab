//! Reading alarms where they are: by ARN, in their own regions, patiently where `CloudWatch` asks to slow down.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use crate::arn::Arn;
use crate::aws_error::{AwsError, Kind};
use crate::backoff;
use crate::guard::LiveAlarm;
use crate::policy::Home;
use crate::runtime::outside::{ALARMS, Described};
use crate::runtime::suite::Suite;

/// Alarms by their ARNs.
pub(super) type Live = BTreeMap<String, LiveAlarm>;

/// Reads the alarms with these ARNs. One of another account is [`LiveAlarm::Foreign`]; one that could not be read is
/// not in the answer, and beside it stands why.
pub(super) async fn read(
    suite: &Suite,
    home: &Home,
    arns: &BTreeSet<String>,
    limits: (DateTime<Utc>, &str),
) -> (Live, Option<AwsError>) {
    let (mut live, regions) = sorted(home, arns);
    let mut failure = None;
    for ((region, partition), names) in regions {
        for names in names.chunks(ALARMS) {
            for (names, found) in each(suite, &region, names, limits).await {
                match found {
                    Ok(found) => {
                        for described in found {
                            // A namesake elsewhere is another alarm.
                            if let Some(slot) = live.get_mut(&described.arn) {
                                *slot = described.live;
                            }
                        }
                    }
                    Err(error) => {
                        for name in names {
                            let account = &home.account;
                            live.remove(&format!(
                                "arn:{partition}:cloudwatch:{region}:{account}:alarm:{name}"
                            ));
                        }
                        failure = Some(error);
                    }
                }
            }
        }
    }
    (live, failure)
}

/// Alarms read for one target of a look of the schedule serve the others for so long: `DescribeAlarms` allows a few
/// calls a second, and a look may have a thousand targets.
const FRESH: TimeDelta = TimeDelta::seconds(5);

/// What a look of the schedule has read lately.
pub(super) struct Recent(Mutex<BTreeMap<String, (DateTime<Utc>, LiveAlarm)>>);

impl Recent {
    /// After a reading that began then.
    pub(super) fn of(live: &Live, at: DateTime<Utc>) -> Self {
        let read = live.iter().map(|(arn, live)| (arn.clone(), (at, *live)));
        Self(Mutex::new(read.collect()))
    }

    /// Reads what was not read lately; of those who ask at once, one reads for all.
    pub(super) async fn read(
        &self,
        suite: &Suite,
        home: &Home,
        arns: &BTreeSet<String>,
        (until, seed): (DateTime<Utc>, &str),
    ) -> (Live, Option<AwsError>) {
        let mut known = self.0.lock().await;
        let now = suite.clock.now();
        // Others wait behind it.
        let limits = (until.min(now + FRESH), seed);
        let old = |arn: &&String| known.get(*arn).is_none_or(|(at, _)| now - *at >= FRESH);
        let wanted: BTreeSet<String> = arns.iter().filter(old).cloned().collect();
        let mut failure = None;
        if !wanted.is_empty() {
            let (live, failed) = read(suite, home, &wanted, limits).await;
            known.retain(|arn, _| !wanted.contains(arn));
            known.extend(live.into_iter().map(|(arn, live)| (arn, (now, live))));
            failure = failed;
        }
        let found = arns.iter().filter_map(|arn| {
            let (_, live) = known.get(arn)?;
            Some((arn.clone(), *live))
        });
        (found.collect(), failure)
    }
}

type Answered<'a> = (&'a [String], Result<Vec<Described>, AwsError>);

/// Asks for alarms together, and for each by itself where the service refuses the request as it stands: one bad name
/// must not blind for the others.
async fn each<'a>(
    suite: &Suite,
    region: &str,
    names: &'a [String],
    limits: (DateTime<Utc>, &str),
) -> Vec<Answered<'a>> {
    let together = patiently(suite, region, names, limits).await;
    let refused = matches!(&together, Err(error) if error.kind == Kind::Rejected);
    if !refused || names.len() == 1 {
        return vec![(names, together)];
    }
    let mut all = Vec::new();
    for name in names.chunks(1) {
        all.push((name, patiently(suite, region, name, limits).await));
    }
    all
}

/// Alarms' names by region and partition.
type Regions = BTreeMap<(String, String), Vec<String>>;

/// The alarms to ask for by region, and those that are answered without asking. What is not found stays gone.
fn sorted(home: &Home, arns: &BTreeSet<String>) -> (Live, Regions) {
    let mut live = Live::new();
    let mut regions = Regions::new();
    for arn in arns {
        let parts: Option<Arn> = arn.parse().ok();
        let name = parts.as_ref().and_then(|parts| {
            let name = parts.resource().strip_prefix("alarm:")?;
            (parts.account() == home.account).then(|| name.to_owned())
        });
        match (parts, name) {
            (Some(parts), Some(name)) => {
                live.insert(arn.clone(), LiveAlarm::Gone);
                let place = (parts.region().to_owned(), parts.partition().to_owned());
                regions.entry(place).or_default().push(name);
            }
            _ => {
                live.insert(arn.clone(), LiveAlarm::Foreign);
            }
        }
    }
    (live, regions)
}

/// `DescribeAlarms` allows nine calls a second in an account (Amazon `CloudWatch` User Guide, "`CloudWatch` service
/// quotas"), and a storm of alarms wakes more functions than that at once: each waits its turn.
async fn patiently(
    suite: &Suite,
    region: &str,
    names: &[String],
    (until, seed): (DateTime<Utc>, &str),
) -> Result<Vec<Described>, AwsError> {
    let mut attempt = 0;
    loop {
        match suite.outside.alarms(region, names).await {
            Err(error) if error.kind == Kind::Throttled && suite.clock.now() < until => {
                // From the first pause on as long as a second, since others wait as well.
                tokio::time::sleep(backoff::pause(attempt + 4, seed)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_asked_for_in_their_own_region_and_account() {
        let home = Home::of_function("arn:aws:lambda:eu-west-1:123456789012:function:f").unwrap();
        let arn = |region: &str, account: &str| {
            format!("arn:aws:cloudwatch:{region}:{account}:alarm:Edge: 5xx")
        };
        let own = "123456789012";
        let arns = BTreeSet::from([
            arn("us-east-1", own),
            arn("eu-west-1", own),
            arn("eu-west-1", "999999999999"),
        ]);
        let (live, regions) = sorted(&home, &arns);
        assert_eq!(regions.len(), 2);
        let edge = ("us-east-1".to_owned(), "aws".to_owned());
        assert_eq!(regions[&edge], ["Edge: 5xx"]);
        assert_eq!(live[&arn("eu-west-1", "999999999999")], LiveAlarm::Foreign);
        assert_eq!(live[&arn("us-east-1", own)], LiveAlarm::Gone);
    }
}

//! Conversion of how long what is lent stays lent. What is not said is unknown, so that an agent or master of an earlier
//! version is understood.

use ebb_types::limits::MAX_LASTING_POINTS;
use ebb_types::{Lasting, LastingPoint};

use crate::check::{Invalid, bounded, quantities, write_quantities};
use crate::proto;

/// The largest confidence: in all of a thousand cases.
const MAX_CONFIDENCE_PERMILLE: u64 = 1_000;

/// Reads what may be absent.
pub(crate) fn lasting(
    field: &'static str,
    wire: Option<proto::Lasting>,
) -> Result<Lasting, Invalid> {
    let Some(wire) = wire else {
        return Ok(Lasting::UNKNOWN);
    };
    bounded(field, wire.points.len(), MAX_LASTING_POINTS)?;
    let points = wire.points.iter().map(|point| {
        Ok(LastingPoint {
            time_ms: point.time_ms,
            amount: quantities(field, &point.amount)?,
        })
    });
    let lasting = Lasting {
        confidence_permille: wire.confidence_permille,
        points: points.collect::<Result<_, Invalid>>()?,
    };
    if lasting.confidence_permille > MAX_CONFIDENCE_PERMILLE {
        let it = lasting.confidence_permille;
        return Err(Invalid::new(
            field,
            format!("holds in {it} of 1000 cases; at most {MAX_CONFIDENCE_PERMILLE} are possible"),
        ));
    }
    if !lasting.is_ordered() {
        return Err(Invalid::new(
            field,
            "is out of order; times must rise and amounts must not",
        ));
    }
    Ok(lasting)
}

/// Writes it; nothing where nothing is known.
pub(crate) fn write_lasting(lasting: &Lasting) -> Option<proto::Lasting> {
    let points = lasting.points.iter().map(|point| proto::LastingPoint {
        time_ms: point.time_ms,
        amount: write_quantities(&point.amount, false),
    });
    (!lasting.points.is_empty()).then(|| proto::Lasting {
        confidence_permille: lasting.confidence_permille,
        points: points.collect(),
    })
}

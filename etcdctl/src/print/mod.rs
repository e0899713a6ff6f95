//! Printing answers, one module per `--write-out` format.
//!
//! A format that cannot show an answer says so only when it is asked to, after the call was made:
//! etcdctl has always worked that way (`put -w table` writes, then exits with 4).

pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod protobuf;
pub(crate) mod rows;
pub(crate) mod simple;
pub(crate) mod table;

use ferrite_client::pb::etcdserverpb as pb;

use crate::context::Context;
use crate::failure::{Exit, Failure};

type Printed = Result<(), Failure>;

/// The health of one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    /// A Go duration; empty if the check could not begin.
    pub(crate) took: String,
    /// Empty if healthy.
    pub(crate) error: String,
}

/// What the member behind one endpoint answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    pub(crate) endpoint: String,
    pub(crate) response: T,
}

/// One output format.
#[expect(unused_variables, reason = "the defaults only refuse")]
pub(crate) trait Printer {
    /// The format's name, for saying what it cannot do.
    fn name(&self) -> &'static str;

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        self.unsupported()
    }

    /// Only the values of a read; the simple format's speciality.
    fn values(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        let message = "print-value-only is only for `--write-out=simple`";
        Err(Failure::bad_args(message))
    }

    /// Only the count of a read; the fields format's speciality.
    fn count(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        let message = "--count-only is only for `--write-out=fields`";
        Err(Failure::bad_args(message))
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        self.unsupported()
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        self.unsupported()
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        self.unsupported()
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        self.unsupported()
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        self.unsupported()
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        self.unsupported()
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        self.unsupported()
    }

    fn unsupported(&self) -> Printed {
        let message = format!("{} not supported as output format", self.name());
        Err(Failure::new(Exit::BadFeature, message))
    }
}

/// The printer of a format; `None` if there is no such format.
pub(crate) fn for_format(format: &str, hex: bool) -> Option<Box<dyn Printer>> {
    Some(match format {
        "simple" => Box::new(simple::Simple { hex }),
        "fields" => Box::new(fields::Fields { hex }),
        "json" => Box::new(json::Json { hex }),
        "protobuf" => Box::new(protobuf::Protobuf),
        "table" => Box::new(table::Table),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

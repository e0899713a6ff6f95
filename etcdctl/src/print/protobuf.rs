//! `-w protobuf`: the encoded answer and nothing else, not even a newline.

use ferrite_client::pb::etcdserverpb as pb;
use prost::Message;

use super::{Printed, Printer};
use crate::context::Context;

pub(crate) struct Protobuf;

impl Printer for Protobuf {
    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        raw(context, response)
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        raw(context, response)
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        raw(context, response)
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        raw(context, response)
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        raw(context, response)
    }
}

fn raw(context: &mut Context, message: &impl Message) -> Printed {
    context.out().write_all(&message.encode_to_vec())?;
    Ok(())
}

//! `-w simple`: for people and shell scripts.

use std::io::{self, Write};

use ferrite_client::pb::etcdserverpb as pb;
use ferrite_client::pb::mvccpb::KeyValue;
use pb::response_op::Response;

use super::{Answer, Health, Printed, Printer, rows};
use crate::context::Context;

pub(crate) struct Simple {
    /// Keys and values as `\x66\x6f\x6f`.
    pub(crate) hex: bool,
}

impl Simple {
    fn pair(&self, out: &mut dyn Write, kv: &KeyValue) -> io::Result<()> {
        self.bytes(out, &kv.key)?;
        self.bytes(out, &kv.value)
    }

    /// One line; bytes go out as they are.
    fn bytes(&self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        if self.hex {
            for byte in bytes {
                write!(out, "\\x{byte:02x}")?;
            }
        } else {
            out.write_all(bytes)?;
        }
        out.write_all(b"\n")
    }
}

impl Printer for Simple {
    fn name(&self) -> &'static str {
        "simple"
    }

    fn get(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        for kv in &response.kvs {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn values(&self, context: &mut Context, response: &pb::RangeResponse) -> Printed {
        for kv in &response.kvs {
            self.bytes(context.out(), &kv.value)?;
        }
        Ok(())
    }

    fn put(&self, context: &mut Context, response: &pb::PutResponse) -> Printed {
        writeln!(context.out(), "OK")?;
        if let Some(kv) = &response.prev_kv {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn delete(&self, context: &mut Context, response: &pb::DeleteRangeResponse) -> Printed {
        writeln!(context.out(), "{}", response.deleted)?;
        for kv in &response.prev_kvs {
            self.pair(context.out(), kv)?;
        }
        Ok(())
    }

    fn txn(&self, context: &mut Context, response: &pb::TxnResponse) -> Printed {
        let outcome = if response.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        };
        writeln!(context.out(), "{outcome}")?;
        for op in &response.responses {
            writeln!(context.out())?;
            match &op.response {
                Some(Response::ResponseRange(response)) => self.get(context, response)?,
                Some(Response::ResponsePut(response)) => self.put(context, response)?,
                Some(Response::ResponseDeleteRange(response)) => self.delete(context, response)?,
                // Neither can be asked for on the command line.
                Some(Response::ResponseTxn(_)) | None => {
                    writeln!(context.out(), "unexpected response {op:?}")?;
                }
            }
        }
        Ok(())
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        joined(context, &rows::members(response))
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        for health in list {
            let Health {
                endpoint,
                took,
                error,
                ..
            } = health;
            if error.is_empty() {
                writeln!(
                    context.out(),
                    "{endpoint} is healthy: successfully committed proposal: took = {took}"
                )?;
            } else {
                context.error_line(format!(
                    "{endpoint} is unhealthy: failed to commit proposal: {error}"
                ))?;
            }
        }
        Ok(())
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        joined(context, &rows::status(list))
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        joined(context, &rows::hash_kv(list))
    }
}

fn joined(context: &mut Context, rows: &[Vec<String>]) -> Printed {
    for row in rows {
        writeln!(context.out(), "{}", row.join(", "))?;
    }
    Ok(())
}

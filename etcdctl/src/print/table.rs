//! `-w table`: a box of UTF-8 lines, headings centred, cells to the right.

use ferrite_client::pb::etcdserverpb as pb;

use super::{Answer, Health, Printed, Printer, rows};
use crate::context::Context;

pub(crate) struct Table;

impl Printer for Table {
    fn name(&self) -> &'static str {
        "table"
    }

    fn member_list(&self, context: &mut Context, response: &pb::MemberListResponse) -> Printed {
        print(context, &rows::MEMBERS, rows::members(response))
    }

    fn health(&self, context: &mut Context, list: &[Health]) -> Printed {
        print(context, &rows::HEALTH, rows::health(list))
    }

    fn status(&self, context: &mut Context, list: &[Answer<pb::StatusResponse>]) -> Printed {
        print(context, &rows::STATUS, rows::status(list))
    }

    fn hash_kv(&self, context: &mut Context, list: &[Answer<pb::HashKvResponse>]) -> Printed {
        print(context, &rows::HASH_KV, rows::hash_kv(list))
    }
}

fn print(context: &mut Context, header: &[&str], rows: Vec<Vec<String>>) -> Printed {
    context.out().write_all(render(header, &rows).as_bytes())?;
    Ok(())
}

/// The whole table, lines ended.
fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| -> String {
        row.get(column)
            .map_or(String::new(), |cell| cell.trim().to_owned())
    };
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().map(|row| width(&cell(row, column)));
            cells.max().unwrap_or(0).max(width(title))
        })
        .collect();

    let rule = |left: &str, middle: &str, right: &str| {
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));

    let mut text = rule("┌", "┬", "┐");
    let titles = header.iter().zip(&widths).map(|(title, &column)| {
        let free = column - width(title);
        // The odd space goes to the right.
        let left = free / 2;
        format!("{}{title}{}", " ".repeat(left), " ".repeat(free - left))
    });
    text.push_str(&line(titles.collect()));
    if !rows.is_empty() {
        text.push_str(&rule("├", "┼", "┤"));
    }
    for row in rows {
        let cells = widths.iter().enumerate().map(|(column, &columns)| {
            let cell = cell(row, column);
            format!("{}{cell}", " ".repeat(columns - width(&cell)))
        });
        text.push_str(&line(cells.collect()));
    }
    text.push_str(&rule("└", "┴", "┘"));
    text
}

/// Terminal columns of a text.
fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Wide East Asian characters and emoji take two columns, combining and control ones none.
fn char_width(c: char) -> usize {
    match u32::from(c) {
        0..=0x1f | 0x7f..=0x9f | 0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

//! Command contexts of secondary commands.

use epoch::CommandContext;
use uuid::Uuid;

/// Returns the context of a command that runs in the transaction of another command. Only the other command is repeatable.
pub(super) fn secondary(context: &CommandContext) -> CommandContext {
    CommandContext {
        command_id: Uuid::now_v7(),
        idempotency: None,
        causation_id: Some(context.command_id),
        expected: None,
        ..context.clone()
    }
}

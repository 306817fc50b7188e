//! What operators may have done.

use super::input::{OperatorCommand, OperatorError};
use super::state::Core;

impl Core {
    pub(super) fn operate(&mut self, command: OperatorCommand) -> Result<(), OperatorError> {
        match command {
            OperatorCommand::SetWeights(weights) => self.set_weights(weights),
            OperatorCommand::SetQuotas {
                quotas,
                lot_limits,
                force,
            } => self.set_quotas(quotas, lot_limits, force),
            OperatorCommand::Teardown(framework_id) => {
                if !self.frameworks.contains_key(&framework_id) {
                    return Err(OperatorError::NoFramework(framework_id));
                }
                self.remove_framework(&framework_id, "Framework was torn down by an operator");
                Ok(())
            }
            OperatorCommand::KillTask {
                framework_id,
                task_id,
                grace_ms,
            } => {
                let Some(framework) = self.frameworks.get(&framework_id) else {
                    return Err(OperatorError::NoFramework(framework_id));
                };
                let live = framework
                    .tasks
                    .get(&task_id)
                    .is_some_and(|task| !task.state.is_terminal());
                if !live {
                    return Err(OperatorError::NoTask {
                        framework_id,
                        task_id,
                    });
                }
                self.kill(&framework_id, &task_id, None, grace_ms);
                Ok(())
            }
            OperatorCommand::ConvertLots {
                agent_id,
                kind,
                lots,
            } => self.convert_free(&agent_id, kind, &lots),
            OperatorCommand::Deactivate(agent_id) => self.deactivate(&agent_id),
            OperatorCommand::Reactivate(agent_id) => self.reactivate(&agent_id),
            OperatorCommand::Drain {
                agent_id,
                max_grace_ms,
            } => self.drain(&agent_id, max_grace_ms),
            OperatorCommand::ScheduleMaintenance(windows) => self.schedule_maintenance(windows),
            OperatorCommand::CancelMaintenance(machines) => self.cancel_maintenance(&machines),
            OperatorCommand::StartMaintenance(machines) => self.start_maintenance(&machines),
            OperatorCommand::StopMaintenance(machines) => self.stop_maintenance(&machines),
        }
    }
}

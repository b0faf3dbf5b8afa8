"""The overlay in `ros2 doctor`: what `ria doctor` finds are its warnings and errors, and the status is a report."""

from ros2doctor.api import DoctorCheck, DoctorReport, Report, Result
from ros2doctor.api.format import doctor_error, doctor_warn

from ros2ria import agent

CATEGORY = "overlay"


def why(told, problem):
    """Why `ria` did not tell what was asked."""
    return problem if told is None else told.get("error", {}).get("text", str(told))


class OverlayCheck(DoctorCheck):
    """Errors and warnings of `ria doctor`."""

    def category(self):
        """What the report belongs to."""
        return CATEGORY

    def check(self):
        """Has the doctor look."""
        result = Result()
        told, problem = agent.ask("doctor")
        if told is None or "findings" not in told:
            # No agent is no error: a machine need not be on the overlay.
            doctor_warn(f"overlay: {why(told, problem)}")
            result.add_warning()
            return result
        for finding in told["findings"]:
            text = f"overlay: {finding['text']}" + (f"; {finding['next']}" if finding["next"] else "")
            if finding["severity"] == "error":
                doctor_error(text)
                result.add_error()
            elif finding["severity"] == "warning":
                doctor_warn(text)
                result.add_warning()
        return result


class OverlayReport(DoctorReport):
    """The status of each network and its peers."""

    def category(self):
        """What the check belongs to."""
        return CATEGORY

    def report(self):
        """Asks the agent."""
        report = Report("OVERLAY NETWORK")
        told, problem = agent.ask("status")
        if told is None or "agent" not in told:
            report.add_to_report("agent", why(told, problem))
            return report
        report.add_to_report("agent", told["agent"].get("version", "unknown"))
        for network in told["networks"]:
            report.add_to_report("network", network["network"])
            for name in ("state", "name", "interface", "coordinator_state", "relay"):
                report.add_to_report(name.replace("_", " "), network.get(name) or "none")
            report.add_to_report("addresses", " ".join(network["addresses"]))
            report.add_to_report("peers up", f"{network['peers_up']} of {network['peers_total']}")
        return report

#!/usr/bin/env python3
"""keyescrow as a new user would try it: the built binary, a swtpm and SoftHSM tokens of its own.

  acceptance_test.py --binary FILE [unittest's arguments, e.g. Devices.test_wrong_pin]

Every class makes a world (acceptance/world.py) and removes it. Each refusal must end in `error:` and
`hint:`, the exit status of the command line's table and an ErrorCode of its own, with nothing changed.
"""

import pathlib
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "acceptance"))

import world  # noqa: E402
from anchors_cases import *  # noqa: E402,F403
from bus_cases import *  # noqa: E402,F403
from ceremony_cases import *  # noqa: E402,F403
from commands_cases import *  # noqa: E402,F403
from completion_cases import *  # noqa: E402,F403
from crash_cases import *  # noqa: E402,F403
from destinations_cases import *  # noqa: E402,F403
from devices_cases import *  # noqa: E402,F403
from doctor_cases import *  # noqa: E402,F403
from drill_cases import *  # noqa: E402,F403
from environment_cases import *  # noqa: E402,F403
from edit_and_rotation_cases import *  # noqa: E402,F403
from envelopes_cases import *  # noqa: E402,F403
from evidence_cases import *  # noqa: E402,F403
from foreign_cases import *  # noqa: E402,F403
from gate_cases import *  # noqa: E402,F403
from life_cases import *  # noqa: E402,F403
from luks_cases import *  # noqa: E402,F403
from monitoring_cases import *  # noqa: E402,F403
from offline_cases import *  # noqa: E402,F403
from options_cases import *  # noqa: E402,F403
from other_key_cases import *  # noqa: E402,F403
from outages_cases import *  # noqa: E402,F403
from pack_cases import *  # noqa: E402,F403
from pack_log_cases import *  # noqa: E402,F403
from path_cases import *  # noqa: E402,F403
from policy_cases import *  # noqa: E402,F403
from recovery_key_cases import *  # noqa: E402,F403
from report_cases import *  # noqa: E402,F403
from rotation_cases import *  # noqa: E402,F403
from sample_cases import *  # noqa: E402,F403
from secrets_cases import *  # noqa: E402,F403
from shares_cases import *  # noqa: E402,F403
from sheet_cases import *  # noqa: E402,F403
from signed_pcr_cases import *  # noqa: E402,F403
from state_cases import *  # noqa: E402,F403
from units_cases import *  # noqa: E402,F403
from volume_rotation_cases import *  # noqa: E402,F403
from wizard_cases import *  # noqa: E402,F403


def main():
    _, others = world.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()

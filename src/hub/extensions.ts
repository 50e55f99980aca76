// The parts of the hub that add resource types and work of their own, in the order in which they open.

import { registerAlerts } from "./alerts/register.ts";
import { openLandingWorld } from "./landing-world.ts";
import { registerReplication } from "./replication/register.ts";
import type { OpenExtension } from "./services.ts";

export const extensions: readonly OpenExtension[] = [registerReplication({ openWorld: openLandingWorld }), registerAlerts()];

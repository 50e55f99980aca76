// The steps of an appliance's set-up, in their only sensible order: each needs what the ones before have settled.

export const setupSteps = ["network", "names", "proxy", "time", "registration", "vcenter", "credentials", "check"] as const;
export type SetupStep = (typeof setupSteps)[number];

// The agent's version, told to the appliance in each poll.

export const agentVersion = "0.1.0";

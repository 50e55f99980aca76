// How a program is started that must not have what this one may do.

/**
 * Words before a command. Capabilities that a service manager gave this program are not the command's; a command that root starts
 * stays root's.
 */
export const withoutRights = ["setpriv", "--ambient-caps=-all", "--inh-caps=-all"] as const;

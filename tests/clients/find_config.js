// Runs inside Thunderbird with privileges and does what its account dialogue does when a person has
// typed an address and a password: it looks everywhere for a configuration, then fills in the user's
// names. It leaves out only the guessing of host names that the dialogue would try afterwards.
const [address, password, mailExchangers, done] = arguments;

const load = path => ChromeUtils.importESModule(`resource:///modules/${path}.sys.mjs`);
const { DNS } = load("DNS");
const { FindConfig } = load("accountcreation/FindConfig");
const { AccountConfig } = load("accountcreation/AccountConfig");

// These records come from the system's resolver, which no preference leads elsewhere; without a map,
// it is asked.
if (mailExchangers) {
  DNS.mx = async domain => {
    if (!mailExchangers[domain]) {
      throw new Error(`no MX record of ${domain}`);
    }
    return [{ prio: 10, host: mailExchangers[domain] }];
  };
  DNS.srv = async name => {
    throw new Error(`no SRV record of ${name}`);
  };
}

const nameOf = (constants, value) =>
  Object.keys(constants).find(name => constants[name] === value) ?? value;

// The settings of a server; what else differs from a server just created goes to "other".
function describe(server, untouched) {
  const { type, hostname, port, socketType, auth, username, ...rest } = server;
  return {
    type,
    hostname,
    port,
    socket_type: nameOf(Ci.nsMsgSocketType, socketType),
    auth: nameOf(Ci.nsMsgAuthMethod, auth),
    username: username ?? "",
    other: Object.fromEntries(
      Object.entries(rest).filter(([key, value]) => value !== untouched[key])
    ),
  };
}

async function find() {
  const search = FindConfig.parallelAutoDiscovery(
    address.split("@")[1],
    address,
    new AbortController().signal,
    password
  );
  const { value: config, done: finished } = await search.next();
  if (!finished) {
    throw new Error(`the dialogue would ask whether to trust ${config.host}`);
  }
  if (!config) {
    return null;
  }
  AccountConfig.replaceVariables(config, "Alice Example", address);
  const untouched = new AccountConfig();
  return {
    source: config.subSource,
    id: config.id,
    display_name: config.displayName,
    domains: config.domains,
    complete: config.isComplete(),
    incoming: [config.incoming, ...config.incomingAlternatives].map(server =>
      describe(server, untouched.incoming)
    ),
    outgoing: [config.outgoing, ...config.outgoingAlternatives].map(server =>
      describe(server, untouched.outgoing)
    ),
  };
}

find().then(
  found => done({ found: JSON.stringify(found) }),
  error => done({ error: `${error}\n${error.stack}` })
);

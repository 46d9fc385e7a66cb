/** What this version of Nginx can do, and what players lose with an older one. PURE. */

export interface ProxyFeatures {
  /** A reload resets no busy keep-alive connection. */
  keepaliveMinTimeout: boolean;
  /** `http2 on`; older ones are served HTTP/1.1. */
  http2: boolean;
  /** Unknown names are refused before a certificate is shown. */
  rejectHandshake: boolean;
}

const introduced: { feature: keyof ProxyFeatures; since: [number, number, number]; without: string }[] = [
  {
    feature: 'keepaliveMinTimeout',
    since: [1, 27, 4],
    without: 'at each switch, clients that are sending on a kept-alive connection can get a reset',
  },
  { feature: 'http2', since: [1, 25, 1], without: 'players are served by HTTP/1.1, not HTTP/2' },
  {
    feature: 'rejectHandshake',
    since: [1, 19, 4],
    without: 'a TLS request for an unknown name is answered with the certificate of the domain',
  },
];

/** Reads `nginx -v`; null when it names no version. */
function parseVersion(text: string): [number, number, number] | null {
  const found = /nginx\/(\d+)\.(\d+)\.(\d+)/.exec(text);
  return found ? [Number(found[1]), Number(found[2]), Number(found[3])] : null;
}

/** An unknown version is taken for an old one. `lost` is for people. */
export function featuresOf(versionText: string): { features: ProxyFeatures; lost: string[] } {
  const version = parseVersion(versionText);
  const has = (since: readonly number[]) => version !== null && compare(version, since) >= 0;
  const features = Object.fromEntries(introduced.map(({ feature, since }) => [feature, has(since)]));
  const lost = introduced
    .filter(({ since }) => !has(since))
    .map(({ since, without }) => `${nameOf(version)} is older than ${since.join('.')}: ${without}`);
  return { features: features as unknown as ProxyFeatures, lost };
}

const nameOf = (version: readonly number[] | null) => (version ? `nginx ${version.join('.')}` : 'This nginx');

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((part, index) => part !== b[index]);
  return at < 0 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}

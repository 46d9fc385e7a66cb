/**
 * A site whose Nginx also speaks TLS, with a certificate of its own making, for benches: players reach Nginx at its
 * address on the project's network, because the engine's port forwarding holds two files per connection and would be
 * full before the game is.
 */
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { pack } from 'tar-stream';
import { label, namesOf, nginxUid, path, port } from '../../../src/contract.ts';
import { packageRoot } from '../../../src/package-root.ts';
import { openSite, type Site } from './site.ts';

export interface TlsSite {
  site: Site;
  httpsUrl: string;
  socketUrl: string;
  /** PEM, for whoever is to trust it. */
  certificateFile: string;
}

const folder = `${path.certificates}/bench`;

/** Deploys twice, because the first deploy makes the volume for the certificate. */
export async function openTlsSite(name: string, config: Record<string, unknown>): Promise<TlsSite> {
  const site = await openSite({ name, config });
  try {
    await mustRun(site, ['deploy', '--watch', '1s']);
    const address = await addressOf(site, 'proxy');
    const certificateFile = await putCertificate(site, address);
    await speakTls(site);
    await mustRun(site, ['deploy', '--again', '--watch', '1s']);
    const at = `${address}:${port.nginxTls}`;
    return { site, httpsUrl: `https://${at}/`, socketUrl: `wss://${at}/ws`, certificateFile };
  } catch (error) {
    await site.close();
    throw error;
  }
}

async function mustRun(site: Site, args: readonly string[]): Promise<void> {
  const ran = await site.run(args);
  if (ran.exitCode !== 0) throw new Error(`${args.join(' ')} ended with ${ran.exitCode}: ${ran.stdout}`);
}

/** Of the first container with that role, on the project's network. */
export async function addressOf(site: Site, role: 'proxy' | 'redis'): Promise<string> {
  const [found] = (await site.containers()).filter(({ Labels }) => Labels[label.role] === role);
  const networks = Object.values(found?.NetworkSettings.Networks ?? {});
  const address = networks[0]?.IPAddress;
  if (!address) throw new Error(`${site.project} has no ${role} with an address`);
  return address;
}

async function putCertificate(site: Site, address: string): Promise<string> {
  const own = await mkdtemp(join(tmpdir(), `${site.project}-tls-`));
  const [certificate, key] = [join(own, 'cert.pem'), join(own, 'key.pem')];
  await execa('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
    ...['-subj', '/CN=gameops bench', '-addext', `subjectAltName=IP:${address},DNS:localhost`],
    ...['-keyout', key, '-out', certificate],
  ]);
  const archive = pack();
  for (const file of ['cert.pem', 'key.pem']) {
    const owner = { uid: nginxUid, gid: nginxUid, mode: 0o400 };
    archive.entry({ name: `bench/${file}`, ...owner }, await readFile(join(own, file)));
  }
  archive.finalize();
  // Nginx has this volume read-only; a container that is never started has it writable.
  const names = namesOf(site.project);
  const [proxy] = (await site.containers()).filter(({ Labels }) => Labels[label.role] === 'proxy');
  const carrier = await site.docker.createContainer({
    Image: proxy?.Image ?? '',
    Cmd: ['true'],
    Labels: { [label.project]: site.project },
    HostConfig: { Binds: [`${names.volume.certificates}:${path.certificates}`] },
  });
  await carrier.putArchive(archive as unknown as NodeJS.ReadableStream, { path: path.certificates });
  await carrier.remove();
  return certificate;
}

/** The shipped template with the settings for a certificate. */
async function speakTls(site: Site): Promise<void> {
  const shipped = await readFile(join(packageRoot(), 'templates', 'nginx', 'nginx.conf.eta'), 'utf8');
  const tls = { certificate: `${folder}/cert.pem`, key: `${folder}/key.pem` };
  await writeFile(join(site.folder, 'nginx.conf.eta'), `<% it.tls = ${JSON.stringify(tls)} %>\n${shipped}`);
  await site.configure({ http: { templates: '.' } });
}

/**
 * What a host name says by itself.
 */

export function isLoopback(host: string): boolean {
  const bare = host.toLowerCase().replace(/^\[|\]$/g, '');
  if (bare === 'localhost' || bare.endsWith('.localhost') || bare === '::1' || bare === '0.0.0.0')
    return true;
  return /^127(\.\d{1,3}){3}$/.test(bare);
}

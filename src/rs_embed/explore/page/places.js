// Where things are: degrees of a place in the grid's CRS, and distances on the ground.

const EARTH_RADIUS_M = 6371008.8;

/**
 * Longitude and latitude from x and y. Python fitted them as polynomials to the CRS, so that any CRS works without a
 * library of projections: with u and v from -1 to 1 over the grid, lon = sum of c[k] u^i v^j.
 */
class Places {
  constructor(crs) {
    this.crs = crs;
  }

  get known() {
    return Boolean(this.crs && this.crs.lonlat);
  }

  lonLat(x, y) {
    const { middle, half, degree, lon, lat } = this.crs.lonlat;
    const u = (x - middle[0]) / half[0];
    const v = (y - middle[1]) / half[1];
    let lonSum = 0;
    let latSum = 0;
    let k = 0;
    for (let i = 0; i <= degree; i++) {
      for (let j = 0; j <= degree - i; j++, k++) {
        const term = u ** i * v ** j;
        lonSum += lon[k] * term;
        latSum += lat[k] * term;
      }
    }
    return [((((lonSum + 180) % 360) + 360) % 360) - 180, latSum];
  }

  /** x and y of a longitude and latitude, by Newton's method from a place of the map; null where it finds none. */
  xy(lon, lat, near) {
    const { half } = this.crs.lonlat;
    const steps = half.map((size) => size / 1000);
    const turn = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
    let [x, y] = near;
    for (let step = 0; step < 20; step++) {
      const here = this.lonLat(x, y);
      const [east, north] = [this.lonLat(x + steps[0], y), this.lonLat(x, y + steps[1])];
      const [a, b, c, d] = [turn(east[0] - here[0]), turn(north[0] - here[0]), east[1] - here[1], north[1] - here[1]];
      const off = [turn(lon - here[0]), lat - here[1]];
      if (Math.hypot(...off) < 1e-10) return [x, y];
      const determinant = a * d - b * c;
      x += (steps[0] * (d * off[0] - b * off[1])) / determinant;
      y += (steps[1] * (a * off[1] - c * off[0])) / determinant;
    }
    return null;
  }

  /** Metres on the ground of one unit to the east, and the way to true north as a unit vector in x and y. */
  at(x, y) {
    if (!this.known) return null;
    const tiny = this.crs.lonlat.half[0] / 1000;
    const [lon, lat] = this.lonLat(x, y);
    const [lonE, latE] = this.lonLat(x + tiny, y);
    const [lonN, latN] = this.lonLat(x, y + tiny);
    const narrow = Math.cos((lat * Math.PI) / 180);
    const [a, b, c, d] = [(lonE - lon) * narrow, (lonN - lon) * narrow, latE - lat, latN - lat];
    const metres = ((Math.hypot(a, c) * Math.PI) / 180) * EARTH_RADIUS_M;
    const determinant = a * d - b * c; // solve for the step that changes latitude only
    const north = [-b / determinant, a / determinant];
    const length = Math.hypot(...north);
    return { metresPerUnit: metres / tiny, north: [north[0] / length, north[1] / length] };
  }

  text(x, y) {
    if (this.known) {
      const [lon, lat] = this.lonLat(x, y);
      return degreesText(lon, lat);
    }
    return `${x.toFixed(1)}, ${y.toFixed(1)}`;
  }
}

function degreesText(lon, lat) {
  return `${Math.abs(lat).toFixed(5)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(5)}° ${lon < 0 ? "W" : "E"}`;
}

function lengthText(metres) {
  return metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
}

function areaText(squareMetres) {
  if (squareMetres >= 1e8) return `${Math.round(squareMetres / 1e6).toLocaleString("en")} km²`;
  if (squareMetres >= 1e6) return `${(squareMetres / 1e6).toFixed(1)} km²`;
  return `${(squareMetres / 1e4).toFixed(1)} ha`;
}

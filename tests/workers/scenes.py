"""A small scene in which every kind of surface, two lamps and a lens take part."""

from peer.workers.rays.request import Camera, Floor, Kind, Material, Point, Scene, Sky, Sphere, Texture
from peer.workers.rays.tiles import Plan


def texture(side: int, step: int) -> Texture:
    return Texture(side=side, pixels=bytes((place * step + 31) % 256 for place in range(3 * side * side)))


def ball(x: int, y: int, z: int, radius: int, material: int) -> Sphere:
    return Sphere(centre=Point(x=x, y=y, z=z), radius=radius, material=material)


def small_scene() -> Scene:
    materials = (
        Material(kind=Kind.MATT, red=800, green=300, blue=200, finish=900),
        Material(kind=Kind.METAL, red=1000, green=800, blue=500, finish=120),
        Material(kind=Kind.GLASS, red=900, green=980, blue=1000, finish=0),
        Material(kind=Kind.LIGHT, red=30_000, green=25_000, blue=20_000, finish=0),
        Material(kind=Kind.GLOW, red=2_000, green=9_000, blue=3_000, finish=0),
        Material(kind=Kind.BUBBLE, red=900, green=500, blue=700, finish=0),
    )
    spheres = [ball(-4_000, 6_000, -2_000, 900, 3), ball(5_000, 5_000, 3_000, 400, 3)]
    spheres += [ball(-2_400 + 800 * place, 500, 400 * (place % 3), 390, place % 6 if place % 6 != 3 else 0) for place in range(7)]
    return Scene(
        sky=Sky(texture=texture(8, 7), gain=1_000),
        floor=Floor(texture=texture(6, 11), span=1_500, coat=700, haze=20_000),
        materials=materials,
        spheres=tuple(spheres),
        camera=Camera(
            eye=Point(x=0, y=1_500, z=-5_000),
            target=Point(x=0, y=500, z=0),
            width=900,
            lens_radius=80,
            focus=5_000,
            exposure=1_000,
        ),
        seed=7,
    )


def small_plan(width: int = 37, height: int = 23, samples: int = 5) -> Plan:
    return Plan(scene=small_scene(), width=width, height=height, samples=samples, bounces=6)
